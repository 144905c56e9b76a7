//! What the card's speed is compared with, counted by and shown in; the measuring itself is in
//! [`vianic_tools::bench`], as guests need it too.

pub mod by_hand;
pub mod callgrind;
pub mod document;
pub mod peers;
pub mod report;
pub mod scale;
pub mod sides;
