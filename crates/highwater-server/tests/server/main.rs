//! The server over real sockets, with real agents of real SQLite nodes behind it.

mod grpc;
mod world;
