"""A run behind HTTP: a page to drop an image on, and an interface for programs, on Ray Serve.

`app.py` is the web application and knows no Ray: it is given a function from pixels to probabilities. `ray_serve.py`
runs it in replicas, which put the images of all requests that wait into common batches.
"""
