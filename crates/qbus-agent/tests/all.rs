//! The agent as its users see it.

mod life;
mod limits;
