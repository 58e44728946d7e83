"""A face for other programs: commands as tools of the Model Context Protocol, over standard input or local HTTP.

Reading is offered always; steering and proposing labels only where whoever starts the server allows them. What comes
back is bounded in size and time, and is data: no character in it acts on whoever shows it.
"""
