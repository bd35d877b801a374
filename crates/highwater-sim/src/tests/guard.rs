//! What a restored node does and does not do.

use super::*;
