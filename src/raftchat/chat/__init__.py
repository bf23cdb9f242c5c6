"""What an entry of the log means to the chat: commands (what is written) and the state over committed entries.

Pure functions of bytes and numbers. Does not know Raft, HTTP, files, processes or the time of day.
"""
