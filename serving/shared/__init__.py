"""What the web page and the local server share: HTTP, ports, and ending in time. It imports nothing of the project."""
