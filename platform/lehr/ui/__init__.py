"""The runs of a storage folder as web pages, alive while runs are. It reads run folders and writes nothing."""
