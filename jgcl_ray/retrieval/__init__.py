"""Search in a gallery: index.py the file, gallery.py images in and out of it, answers.py, request.py all of it."""
