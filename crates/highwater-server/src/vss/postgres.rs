//! Stores in PostgreSQL: many nodes, several server processes over one database.
