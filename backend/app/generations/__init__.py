"""What a generation is, from the request that is accepted to the image that is deleted, without HTTP: the life that all
dialects share. Here so far: the partitions that its rows are stored in.
"""
