//! Follows what an HTTP/2 client sends and rewrites `:authority` values that no server may accept, in place.
//!
//! Why: gRPC libraries of the C core (Python, C++, Ruby, PHP) put the percent-encoded path of the Unix socket there, which is
//! malformed (RFC 9113 section 8.3.1), so servers reset each of their calls. What is not the octets of such a value passes
//! untouched and in order: frames keep their lengths, header blocks their sizes. Bytes that this cannot follow (no HTTP/2, a
//! broken frame, a broken or over-long header block) end the rewriting for the rest of the connection; the server then sees
//! exactly what the client sent, and judges it. Memory is bounded by [`AUTHORITY_HOLD_BYTES`] and the dynamic table.

use super::header_block::{HeaderBlock, Lost};
use crate::limits::{AUTHORITY_HOLD_BYTES, HEADER_BLOCK_BYTES};

/// The state of one connection.
#[derive(Debug)]
pub struct AuthorityFilter {
    frame: Frame,
    block: HeaderBlock,
    /// Octets of the header block under way; `None` between blocks.
    in_block: Option<Block>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    stream: u32,
    octets: usize,
}

#[derive(Debug, Clone, Copy)]
enum Frame {
    /// So many octets of the client's preface came.
    Preface(usize),
    /// So many octets of a frame's head came.
    Head { octets: [u8; HEAD], len: usize },
    /// A frame that is passed on.
    Other { left: usize },
    /// The length of the padding comes next.
    PadLength { left: usize, ends: bool, priority: bool },
    /// Stream dependency and weight.
    Priority { left: usize, priority: usize, padding: usize, ends: bool },
    /// A piece of a header block.
    Fragment { left: usize, padding: usize, ends: bool },
    /// Padding of a header frame.
    Padding { left: usize },
    /// Everything passes.
    Lost,
}

impl AuthorityFilter {
    /// For the beginning of a connection.
    pub fn new() -> Self {
        let in_block = None;
        Self { frame: Frame::Preface(0), block: HeaderBlock::new(), in_block }
    }

    /// Follows `octets[new..]`; what comes before are octets that were held back by the call before. Returns how many octets
    /// from the front are final: these are to be taken away, the others stay at the front for the next call.
    pub fn follow(&mut self, octets: &mut [u8], new: usize) -> usize {
        if self.is_lost() {
            return octets.len();
        }
        let mut at = new;
        while at < octets.len() {
            let followed = self.step(octets, at).and_then(|steps| {
                at = at.saturating_add(steps.max(1));
                // Looked at after each step, so that it makes no difference in which pieces the octets come.
                let held = at.saturating_sub(self.block.first_held().unwrap_or(at));
                if held > AUTHORITY_HOLD_BYTES { Err(Lost) } else { Ok(()) }
            });
            if followed.is_err() {
                self.frame = Frame::Lost;
                return octets.len();
            }
        }
        let final_octets = self.block.first_held().unwrap_or(octets.len()).min(octets.len());
        self.block.moved(final_octets);
        final_octets
    }

    /// Whether the client has begun to speak: its whole preface came, or something else.
    pub fn has_begun(&self) -> bool {
        !matches!(self.frame, Frame::Preface(_))
    }

    /// Whether rewriting has ended for good.
    pub fn is_lost(&self) -> bool {
        matches!(self.frame, Frame::Lost)
    }

    /// Follows at least one octet; says how many.
    fn step(&mut self, octets: &mut [u8], at: usize) -> Result<usize, Lost> {
        let octet = *octets.get(at).ok_or(Lost)?;
        let mut steps = 1;
        self.frame = match self.frame {
            Frame::Lost => return Err(Lost),
            Frame::Preface(len) => match PREFACE.get(len) {
                Some(wanted) if *wanted == octet && len + 1 < PREFACE.len() => Frame::Preface(len + 1),
                Some(wanted) if *wanted == octet => EMPTY_HEAD,
                _ => return Err(Lost),
            },
            Frame::Head { octets: mut head, len } => {
                *head.get_mut(len).ok_or(Lost)? = octet;
                if len + 1 < HEAD { Frame::Head { octets: head, len: len + 1 } } else { self.frame(head)? }
            }
            Frame::Other { left } => {
                steps = left.min(octets.len() - at);
                after(left - steps, |left| Frame::Other { left })
            }
            Frame::PadLength { left, ends, priority } => {
                let (left, padding) = (left - 1, usize::from(octet));
                let room = left.checked_sub(padding).ok_or(Lost)?;
                self.head_frame(room, padding, ends, priority)?
            }
            Frame::Priority { left, priority: 1, padding, ends } => self.fragment(left, padding, ends)?,
            Frame::Priority { left, priority, padding, ends } => {
                Frame::Priority { left, priority: priority - 1, padding, ends }
            }
            Frame::Fragment { left, padding, ends } => {
                let block = self.in_block.as_mut().ok_or(Lost)?;
                block.octets += 1;
                if block.octets > HEADER_BLOCK_BYTES {
                    return Err(Lost);
                }
                self.block.octet(octets, at)?;
                if left > 1 {
                    Frame::Fragment { left: left - 1, padding, ends }
                } else {
                    self.fragment(0, padding, ends)?
                }
            }
            Frame::Padding { left } => {
                steps = left.min(octets.len() - at);
                after(left - steps, |left| Frame::Padding { left })
            }
        };
        Ok(steps)
    }

    /// What follows a frame's head.
    fn frame(&mut self, head: [u8; HEAD]) -> Result<Frame, Lost> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let left = usize::try_from(u32::from_be_bytes([0, a, b, c])).map_err(|_| Lost)?;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        let ends = flags & END_HEADERS != 0;
        match (kind, self.in_block) {
            (HEADERS, None) => {
                self.in_block = Some(Block { stream, octets: 0 });
                let priority = flags & PRIORITY != 0;
                match flags & PADDED != 0 {
                    true if left == 0 => Err(Lost),
                    true => Ok(Frame::PadLength { left, ends, priority }),
                    false => self.head_frame(left, 0, ends, priority),
                }
            }
            // RFC 9113 section 6.10: the rest of a block follows at once and on the same stream.
            (CONTINUATION, Some(block)) if block.stream == stream => self.fragment(left, 0, ends),
            (CONTINUATION, _) | (_, Some(_)) | (PUSH_PROMISE, None) => Err(Lost),
            (_, None) => Ok(after(left, |left| Frame::Other { left })),
        }
    }

    /// A HEADERS frame after its padding's length.
    fn head_frame(&mut self, left: usize, padding: usize, ends: bool, priority: bool) -> Result<Frame, Lost> {
        match priority {
            false => self.fragment(left, padding, ends),
            true => {
                let left = left.checked_sub(PRIORITY_BYTES).ok_or(Lost)?;
                Ok(Frame::Priority { left, priority: PRIORITY_BYTES, padding, ends })
            }
        }
    }

    /// A piece of a block of this length; at none the piece is over, and with it perhaps the block.
    fn fragment(&mut self, left: usize, padding: usize, ends: bool) -> Result<Frame, Lost> {
        if left > 0 {
            return Ok(Frame::Fragment { left, padding, ends });
        }
        if ends {
            if !self.block.is_between() {
                return Err(Lost);
            }
            self.in_block = None;
        }
        Ok(after(padding, |left| Frame::Padding { left }))
    }
}

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self::new()
    }
}

fn after(left: usize, rest: impl FnOnce(usize) -> Frame) -> Frame {
    if left > 0 { rest(left) } else { EMPTY_HEAD }
}

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113 section 4.1.
const HEAD: usize = 9;
const EMPTY_HEAD: Frame = Frame::Head { octets: [0; HEAD], len: 0 };
const HEADERS: u8 = 1;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

#[cfg(test)]
mod tests;
