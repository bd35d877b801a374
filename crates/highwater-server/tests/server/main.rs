//! The server over real sockets, with real agents of real SQLite nodes behind it.

#[cfg(test)]
mod access;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod junk;
#[cfg(test)]
mod patience;
#[cfg(test)]
mod python;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod rpc;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod world;
