//! The table as the card reads it.

use std::cell::RefCell;
use std::sync::atomic::AtomicU32;

use vianic_abi::nic_memory::{MDL_ENTRIES, MDL_OFFSET, Registers};

use super::*;
use crate::agent::direct::ram::in_memory;

/// A card that notes the chunks and lets go of handles when told to.
struct Card {
    nic_memory: Arc<NicMemory>,
    mdl_insert: u64,
    chunks: RefCell<Vec<u64>>,
    drains: RefCell<usize>,
}

impl RunCommand for Card {
    fn add_chunk(&self, chunk: MrtChunk) -> Result<(), Status> {
        assert_eq!(chunk.chunk as usize, self.chunks.borrow().len());
        self.chunks.borrow_mut().push(chunk.address);
        Ok(())
    }

    fn drain_mdl(&self) -> Result<(), Status> {
        *self.drains.borrow_mut() += 1;
        let inserted = read::<1>(self.mdl_insert)[0] & u64::from(u32::MAX);
        self.drained(u32::try_from(inserted).expect("32 bits"));
        Ok(())
    }
}

impl Card {
    fn drained(&self, count: u32) {
        let offset = std::mem::offset_of!(Registers, mdl_drained);
        self.nic_memory.registers_area().words::<AtomicU32>(offset, 1)[0].store(count, Ordering::Release);
    }

    fn entry(&self, region: u32) -> MrtEntry {
        let index = handle_index(region);
        let chunk = self.chunks.borrow()[(index / MRT_CHUNK_ENTRIES) as usize];
        let address = chunk + u64::from(index % MRT_CHUNK_ENTRIES) * MRT_ENTRY_SIZE as u64;
        zerocopy::transmute!(read::<MRT_ENTRY_WORDS>(address))
    }

    /// The guest-physical address of the region's byte at `offset`, found as the card finds it.
    fn translate(&self, region: u32, offset: u64) -> u64 {
        let entry = self.entry(region);
        assert_eq!(entry.handle, region);
        let page = 1_u64 << entry.page_shift;
        let virtual_address = entry.virtual_address + offset;
        let number = (virtual_address >> entry.page_shift) - (entry.virtual_address >> entry.page_shift);
        assert!(number < entry.page_count);
        let address = if entry.page_directory == 0 {
            entry.pages[in_memory(number)]
        } else {
            let leaf = read::<1>(entry.page_directory + number / LEAF_PAGES * 8)[0];
            assert!(leaf.is_multiple_of(PAGE));
            read::<1>(leaf + number % LEAF_PAGES * 8)[0]
        };
        assert!(address.is_multiple_of(page));
        address + virtual_address % page
    }
}

fn read<const N: usize>(address: u64) -> [u64; N] {
    let words: &[AtomicU64] = ram().memory().words(in_memory(address), N);
    std::array::from_fn(|index| words[index].load(Ordering::Relaxed))
}

fn ram() -> &'static Ram {
    Ram::of_this_process().expect("guest RAM")
}

fn table() -> (Mrt, Card) {
    let nic_memory = Arc::new(NicMemory::new().expect("NIC memory"));
    let mrt = Mrt::new(ram(), Arc::clone(&nic_memory)).expect("guest RAM");
    let mdl_insert = mrt.mdl_insert_address();
    (mrt, Card { nic_memory, mdl_insert, chunks: RefCell::default(), drains: RefCell::default() })
}

fn region(virtual_address: u64, length: u64) -> RegionAttributes {
    RegionAttributes { context: 3, ptag: 9, access: 1, virtual_address, length }
}

fn adopted(runs: &[Run]) -> Adopted {
    Adopted { runs: runs.to_vec(), pins: Vec::new() }
}

#[test]
fn the_card_finds_every_byte() {
    let (mrt, card) = table();
    let base = 0x7000_0000_0000;
    for pages in [1, 2, 10, 11, 512, 513, 1025] {
        // The first page in one place, all others in another.
        let runs = [
            Run { virtual_address: base, address: 0x80_0000, length: PAGE },
            Run { virtual_address: base + PAGE, address: 0x123_4000, length: 2000 * PAGE },
        ];
        let length = pages * PAGE - 0x123;
        let handle = mrt.register(&region(base + 0x100, length), adopted(&runs), &card).expect("room");
        let entry = card.entry(handle);
        assert_eq!((entry.context, entry.ptag, entry.access, entry.page_shift), (3, 9, 1, 12));
        assert_eq!(entry.page_count, pages);
        assert_eq!(entry.page_directory == 0, pages <= INLINE_PAGES as u64);
        for offset in (0..length).step_by(3333).chain([PAGE - 0x101, PAGE - 0x100, length - 1]) {
            if offset < length {
                let in_pages = offset + 0x100;
                let expected = if in_pages < PAGE { 0x80_0000 + in_pages } else { 0x123_3000 + in_pages };
                assert_eq!(card.translate(handle, offset), expected);
            }
        }
    }
    assert_eq!(card.chunks.borrow().len(), 1);
}

#[test]
fn contiguous_memory_is_described_with_large_pages() {
    let (mrt, card) = table();
    let base = 0x7000_0001_3000;
    let run = Run { virtual_address: base, address: 0x4001_3000, length: 1 << 30 };
    let handle = mrt.register(&region(base + 1, (1 << 30) - 1), adopted(&[run]), &card).expect("room");
    let entry = card.entry(handle);
    assert_eq!((entry.page_shift, entry.page_count), (21, 513));
    for offset in [0, LARGE_PAGE - 0x13002, LARGE_PAGE - 0x13001, 77 * LARGE_PAGE, (1 << 30) - 2] {
        assert_eq!(card.translate(handle, offset), 0x4001_3001 + offset);
    }
}

#[test]
fn deregistration_goes_through_the_mdl() {
    let (mrt, card) = table();
    let run = Run { virtual_address: 0x1000, address: 0x5000, length: PAGE };
    let handles: Vec<u32> =
        (0..3).map(|_| mrt.register(&region(0x1000, 8), adopted(&[run]), &card).expect("room")).collect();
    mrt.deregister(handles[1], &card).expect("room in the MDL");
    assert_eq!(card.entry(handles[1]).handle, 0);
    assert_eq!(card.entry(handles[2]).handle, handles[2]);
    let mdl = card.nic_memory.requests_area().words::<AtomicU32>(in_memory(MDL_OFFSET), 1);
    assert_eq!(mdl[0].load(Ordering::Relaxed), handles[1]);
    assert_eq!(read::<1>(card.mdl_insert), [1]);
}

#[test]
fn changed_attributes_are_there_and_the_card_has_let_go_of_the_old_ones() {
    let (mrt, card) = table();
    let run = Run { virtual_address: 0x1000, address: 0x5000, length: PAGE };
    let handle = mrt.register(&region(0x1000, 8), adopted(&[run]), &card).expect("room");
    let before = card.entry(handle);
    mrt.change(handle, 4, 2, &card).expect("the card drains");
    assert_eq!(card.entry(handle), MrtEntry { ptag: 4, access: 2, ..before });
    let mdl = card.nic_memory.requests_area().words::<AtomicU32>(in_memory(MDL_OFFSET), 1);
    assert_eq!(mdl[0].load(Ordering::Relaxed), handle);
    assert_eq!((read::<1>(card.mdl_insert), *card.drains.borrow()), ([1], 1));
    // Its pages stay until it is deregistered.
    mrt.deregister(handle, &card).expect("room in the MDL");
    assert_eq!(mrt.state.lock().retired.len(), 1);
}

#[test]
fn a_full_mdl_is_drained() {
    let (mrt, card) = table();
    let run = Run { virtual_address: 0x1000, address: 0x5000, length: PAGE };
    let mut last = 0;
    for _ in 0..2 * MDL_ENTRIES + 1 {
        let handle = mrt.register(&region(0x1000, 8), adopted(&[run]), &card).expect("room");
        assert_ne!(handle, last);
        mrt.deregister(handle, &card).expect("room in the MDL");
        last = handle;
    }
    assert_eq!(*card.drains.borrow(), 2);
}

#[test]
fn page_tables_stay_until_the_card_has_let_go() {
    let (mrt, card) = table();
    let run = Run { virtual_address: 0x1000, address: 0x5000, length: 20 * PAGE };
    let handle = mrt.register(&region(0x1000, 20 * PAGE), adopted(&[run]), &card).expect("room");
    let directory = card.entry(handle).page_directory;
    mrt.deregister(handle, &card).expect("room in the MDL");
    assert_ne!(read::<1>(directory), [0]);
    card.drained(1);
    // The next call notices.
    mrt.register(&region(0x1000, 8), adopted(&[run]), &card).expect("room");
    assert_eq!(mrt.state.lock().retired.len(), 0);
}

#[test]
fn the_table_grows_and_ends() {
    let (mrt, card) = table();
    let run = Run { virtual_address: 0x1000, address: 0x5000, length: PAGE };
    let total = MRT_CHUNK_ENTRIES * MRT_MAX_CHUNKS;
    for index in 0..total {
        let handle = mrt.register(&region(0x1000, 8), adopted(&[run]), &card).expect("room");
        assert_eq!(handle_index(handle), index);
    }
    assert_eq!(card.chunks.borrow().len(), MRT_MAX_CHUNKS as usize);
    assert_eq!(mrt.register(&region(0x1000, 8), adopted(&[run]), &card), Err(Status::ERROR_RESOURCE));
    mrt.deregister(handle(5, 1), &card).expect("room in the MDL");
    assert_eq!(*card.drains.borrow(), 0);
    // The index is the card's until it has let go.
    assert_eq!(mrt.register(&region(0x1000, 8), adopted(&[run]), &card), Ok(handle(5, 2)));
    assert_eq!(*card.drains.borrow(), 1);
}
