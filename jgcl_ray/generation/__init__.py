"""Novel views of given people: people.py what goes in, view_generator.py the networks, pictures.py what comes out,
scores.py how near it is to the truth, request.py all of it.
"""
