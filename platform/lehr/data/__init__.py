"""Source → decoded rows in shared memory → batches on the device."""
