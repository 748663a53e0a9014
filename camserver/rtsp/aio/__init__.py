"""RTSP over asyncio: connections, ports and sessions."""
