"""From footage to crops: video or frames, and what a tracker wrote of them, to a folder of tracklets per camera.

formats.py and its neighbours read what trackers write, tracks.py makes it numbers of one kind, video.py reads frames,
quality.py and sampling.py say which crops are worth having, camera.py goes through one camera's footage, command.py
through all of them, on_ray.py on all machines at once.
"""
