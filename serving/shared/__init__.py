"""What the web page and the local server share: HTTP, ports, ending in time, and what is captured.

Of the project it imports the messages of the client alone.
"""
