-- Has this connection's statements planned anew. A plan that was made while the tables were small reads them whole, and
-- PostgreSQL keeps it until it has analysed them.
discard plans
