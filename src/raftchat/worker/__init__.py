"""One HTTP worker: REST, WebSocket and the web client over a read-only view of the committed log.

Proposals and reads go to the Raft process of the node (`link`); what it commits is read from the mapped log and
applied (`replica`), which answers the waiting posts (`pending`) and feeds the sockets (`hub`). Does not know peers or
elections.
"""
