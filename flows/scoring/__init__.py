"""Folders of audio scored against recordings: the pipeline that stands for it, its run and its report."""
