//! Single buckets and values of a bbolt file, without a look at the rest of it.

use std::fs::File;

use super::walk::{BRANCH, BUCKET, DEPTH_MAX, Element, Elements, LEAF, Root, Run, root_of, run_of};
use super::{Meta, newest};
use crate::engine::pages::source::Source;
use crate::engine::pages::{PageFault, Result, damaged};
use crate::error::{Error, Result as Outcome};

/// No more elements are looked at through one [`Bolt`]: a file that leads in a circle ends here.
const ELEMENTS_MAX: u64 = 4_000_000;

/// A bbolt database as it was captured: what its last transaction left.
pub struct Bolt {
    file: File,
    meta: Meta,
    room: u64,
}

/// A bucket of a [`Bolt`].
#[derive(Clone, Copy, Debug)]
pub struct Bucket(Root);

/// A value of a [`Bolt`].
#[derive(Clone, Copy, Debug)]
pub struct Value {
    offset: u64,
    length: u64,
}

/// What a key of a bucket leads to.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A bucket in the bucket.
    Bucket(Bucket),
    /// A value.
    Value(Value),
}

impl Item {
    /// The bucket, where it is one.
    pub fn bucket(self) -> Option<Bucket> {
        match self {
            Item::Bucket(bucket) => Some(bucket),
            Item::Value(_) => None,
        }
    }

    /// The value, where it is one.
    pub fn value(self) -> Option<Value> {
        match self {
            Item::Value(value) => Some(value),
            Item::Bucket(_) => None,
        }
    }
}

impl Bolt {
    /// Of a file that stands still.
    ///
    /// # Errors
    /// Corrupt where its meta pages are damaged, or of a format that is not known; what the system says.
    pub fn open(file: File) -> Outcome<Bolt> {
        let source = Source::new(&file).map_err(told)?;
        let (meta, _) = newest(&source).map_err(told)?;
        Ok(Bolt { file, meta, room: ELEMENTS_MAX })
    }

    /// The bucket that all others are in.
    pub fn root(&self) -> Bucket {
        Bucket(Root::Page(self.meta.root))
    }

    /// What `key` of a bucket leads to; `None` where the bucket has no such key.
    ///
    /// # Errors
    /// Corrupt where a page on the way is damaged; what the system says.
    pub fn find(&mut self, bucket: Bucket, key: &[u8]) -> Outcome<Option<Item>> {
        let source = Source::new(&self.file).map_err(told)?;
        find(&source, self.meta, &mut self.room, bucket, key).map_err(told)
    }

    /// Every key of a bucket, in order, and what it leads to.
    ///
    /// # Errors
    /// Those of [`Bolt::find`].
    pub fn items(&mut self, bucket: Bucket) -> Outcome<Vec<(Vec<u8>, Item)>> {
        let source = Source::new(&self.file).map_err(told)?;
        let mut items = Vec::new();
        let mut open = vec![(bucket.0, 0)];
        while let Some((root, depth)) = open.pop() {
            let children = collect(&source, self.meta, &mut self.room, root, &mut items);
            let children = children.map_err(told)?;
            if depth > DEPTH_MAX {
                return Err(told(PageFault::Damaged(
                    "The pages of a bucket lead too deep.".into(),
                )));
            }
            // The first of them is the next.
            open.extend(children.into_iter().rev().map(|page| (Root::Page(page), depth + 1)));
        }
        Ok(items)
    }

    /// The first `bytes` of a value; of a shorter one all.
    ///
    /// # Errors
    /// Corrupt where the file is cut; what the system says.
    pub fn head(&self, value: Value, bytes: usize) -> Outcome<Vec<u8>> {
        let source = Source::new(&self.file).map_err(told)?;
        let length = usize::try_from(value.length).unwrap_or(usize::MAX).min(bytes);
        source.read(value.offset, length).map_err(told)
    }
}

fn told(fault: PageFault) -> Error {
    match fault {
        PageFault::Damaged(what) | PageFault::Unknown(what) => Error::corrupt(what),
        PageFault::Io(error) => Error::io("can't read a captured database", error),
    }
}

fn spend(room: &mut u64) -> Result<()> {
    match room.checked_sub(1) {
        Some(left) => {
            *room = left;
            Ok(())
        }
        None => damaged("Its buckets have more elements than are looked at."),
    }
}

fn run(source: &Source<'_>, meta: Meta, root: Root) -> Result<Run> {
    let run = match root {
        Root::Page(page) => run_of(source, meta, page)?.0,
        Root::Within(run) => run,
    };
    match run.flags {
        LEAF | BRANCH => Ok(run),
        flags => damaged(format!(
            "Page {} has the flags {flags:#06x}, which no page of a tree has.",
            run.page
        )),
    }
}

fn find(
    source: &Source<'_>,
    meta: Meta,
    room: &mut u64,
    bucket: Bucket,
    key: &[u8],
) -> Result<Option<Item>> {
    let mut root = bucket.0;
    for _ in 0..DEPTH_MAX {
        let run = run(source, meta, root)?;
        let mut elements = Elements::new(source, run);
        let mut child = None;
        while let Some(element) = elements.next()? {
            spend(room)?;
            let here = elements.key(element)?;
            if run.flags == LEAF && here == key {
                return item(source, run, element).map(Some);
            }
            // What is before the first key of a branch is nowhere else, if it is anywhere.
            if here > key && (run.flags == LEAF || child.is_some()) {
                break;
            }
            child = Some(element.child);
        }
        match child.filter(|_| run.flags == BRANCH) {
            Some(child) => root = Root::Page(child),
            None => return Ok(None),
        }
    }
    damaged("The pages of a bucket lead too deep.")
}

/// Adds the elements of a leaf; of a branch tells the pages that it leads to.
fn collect(
    source: &Source<'_>,
    meta: Meta,
    room: &mut u64,
    root: Root,
    items: &mut Vec<(Vec<u8>, Item)>,
) -> Result<Vec<u64>> {
    let run = run(source, meta, root)?;
    let mut elements = Elements::new(source, run);
    let mut children = Vec::new();
    while let Some(element) = elements.next()? {
        spend(room)?;
        if run.flags == BRANCH {
            children.push(element.child);
        } else {
            let key = elements.key(element)?.to_vec();
            items.push((key, item(source, run, element)?));
        }
    }
    Ok(children)
}

fn item(source: &Source<'_>, run: Run, element: Element) -> Result<Item> {
    if element.flags == BUCKET {
        return Ok(Item::Bucket(Bucket(root_of(source, run, element)?)));
    }
    let (at, length) = element.value;
    Ok(Item::Value(Value { offset: run.offset.saturating_add(at), length }))
}
