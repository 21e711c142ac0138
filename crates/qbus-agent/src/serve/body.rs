//! What an answer carries.

use std::convert::Infallible;
use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use memmap2::MmapMut;
use tokio::sync::mpsc;

use super::limits::Unsent;

/// A piece of a page.
const PIECE_BYTES: usize = 256 * 1024;
/// What is shorter comes from the heap.
const SMALL_BYTES: usize = 64 * 1024;

/// The bytes of a page, in pieces: it grows without being copied, and what was sent is let go.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces(Vec<Bytes>);

impl Pieces {
    /// What is written, compressed with gzip if that is wanted: quickly, since a scrape is shorter
    /// for it on any network, and a better ratio costs more time than it saves.
    pub(super) fn written(gzip: bool, write: impl FnOnce(&mut dyn Write)) -> Pieces {
        let mut gathered = Gathered::default();
        if gzip {
            let mut encoder = GzEncoder::new(&mut gathered, Compression::fast());
            write(&mut encoder);
            // What gathers takes everything.
            let _ = encoder.finish();
        } else {
            write(&mut gathered);
        }
        gathered.pass_on();
        Pieces(gathered.pieces)
    }

    /// The same bytes, compressed.
    pub(super) fn packed(&self) -> Pieces {
        Pieces::written(true, |out| {
            for piece in &self.0 {
                let _ = out.write_all(piece);
            }
        })
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

/// Takes bytes, all of them.
#[derive(Debug, Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    /// The last piece, as long as it grows.
    open: Open,
}

/// A piece that grows.
#[derive(Debug)]
enum Open {
    Small(Vec<u8>),
    /// Memory of its own, which goes back to the system with the piece: an allocator would keep it
    /// for the next page. So many bytes of it are written.
    Mapped(MmapMut, usize),
}

impl Default for Open {
    fn default() -> Open {
        Open::Small(Vec::new())
    }
}

impl Gathered {
    fn pass_on(&mut self) {
        let piece = match mem::take(&mut self.open) {
            Open::Small(bytes) => Bytes::from(bytes.into_boxed_slice()),
            Open::Mapped(map, len) => Bytes::from_owner(map).slice(..len),
        };
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }
}

impl Write for Gathered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Open::Small(small) = &self.open
            && (small.len() + bytes.len() > SMALL_BYTES || !self.pieces.is_empty())
        {
            self.pass_on();
            // Where the system gives none, the heap has to.
            if let Ok(map) = MmapMut::map_anon(PIECE_BYTES) {
                self.open = Open::Mapped(map, 0);
            }
        }
        match &mut self.open {
            Open::Small(small) => {
                small.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Open::Mapped(map, len) => {
                let taken = bytes.len().min(map.len() - *len);
                map[*len..*len + taken].copy_from_slice(&bytes[..taken]);
                *len += taken;
                if *len == map.len() {
                    self.pass_on();
                }
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Payload {
    /// All of it is in memory.
    Whole {
        pieces: vec::IntoIter<Bytes>,
        /// How many bytes have not been passed on yet.
        left: u64,
        unsent: Option<Unsent>,
    },
    /// As it comes, until the sender is gone.
    Stream(mpsc::Receiver<Bytes>),
}

impl From<Pieces> for Payload {
    fn from(pieces: Pieces) -> Payload {
        Payload::Whole {
            left: pieces.len(),
            pieces: pieces.0.into_iter(),
            unsent: None,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload::from(Pieces(vec![bytes]))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Payload {
        Payload::from(Bytes::from(text))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Payload::Whole { pieces, left, .. } => Poll::Ready(pieces.next().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Payload::Stream(chunks) => chunks
                .poll_recv(context)
                .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Payload::Whole { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Whole { left, .. } => SizeHint::with_exact(*left),
            Payload::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_written_comes_out_in_pieces_and_packed() {
        let byte = |at: usize| (at * at % 251) as u8;
        for len in [0, 1, SMALL_BYTES, PIECE_BYTES, 3 * PIECE_BYTES + 7] {
            let expected: Vec<u8> = (0..len).map(byte).collect();
            let plain = Pieces::written(false, |out| {
                for part in expected.chunks(30_000) {
                    out.write_all(part).expect("it takes everything");
                }
            });
            assert_eq!(plain.0.concat(), expected);
            assert!(plain.0.iter().all(|piece| piece.len() <= PIECE_BYTES));
            let packed = plain.packed();
            assert_eq!(packed.len(), packed.0.concat().len() as u64);
            let mut unpacked = Vec::new();
            let packed = packed.0.concat();
            let read = GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked);
            assert!(read.is_ok() && unpacked == expected);
        }
    }
}
