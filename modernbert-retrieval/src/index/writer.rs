//! Building and changing an index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use modernbert_files::atomic::is_unfinished;
use modernbert_files::lock::{FolderLock, LockError};

use super::manifest::{Entry, Manifest};
use super::segment::{self, SegmentBuilder};
use super::{
    IndexError, IndexOptions, ModelId, SEGMENT_ROWS, VectorIndex, check_dimension, check_model,
    names, open_segments, options, prepared,
};

/// Place of a vector that can be found.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Entry of the manifest and row.
    Stored(usize, u32),
    /// Row of the unfinished segment.
    Pending(u32),
}

/// The one process that changes an index. Changes are visible to new readers after [`Self::commit`]; without it they are dropped.
pub struct IndexWriter {
    folder: PathBuf,
    manifest: Manifest,
    pending: SegmentBuilder,
    pending_deleted: Vec<u32>,
    places: HashMap<String, Place>,
    deleted: BTreeMap<usize, HashSet<u32>>,
    added: usize,
    _lock: FolderLock,
}

impl IndexWriter {
    /// Makes an empty index in a folder, which is created if needed. The index exists once it is committed.
    ///
    /// # Errors
    /// [`IndexError`]: an index is there, another process works on the folder, a dimension outside 1 to 65,536, an error of the operating system.
    pub fn create(folder: &Path, options: &IndexOptions) -> Result<Self, IndexError> {
        check_dimension(options.dimension)?;
        modernbert_files::output::make_folder(folder).map_err(IndexError::io(folder))?;
        let lock = lock(folder)?;
        if Manifest::exists(folder) {
            return Err(IndexError::Exists {
                path: folder.to_path_buf(),
            });
        }
        let manifest = Manifest {
            generation: 0,
            next_file: 1,
            dimension: options.dimension,
            dtype: options.dtype,
            similarity: options.similarity,
            model: options.model.clone(),
            segments: Vec::new(),
        };
        let writer = Self::new(folder, manifest, HashMap::new(), lock);
        writer.remove_unused()?;
        Ok(writer)
    }

    /// Opens an index for changes and removes what a killed process may have left.
    ///
    /// # Errors
    /// [`IndexError`]: no index, a damaged one, another process works on it.
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        if !Manifest::exists(folder) {
            return Err(IndexError::NoIndex {
                path: folder.to_path_buf(),
            });
        }
        let lock = lock(folder)?;
        let manifest = Manifest::read(folder)?;
        let mut places = HashMap::new();
        for (number, segment) in open_segments(folder, &manifest, true)?.iter().enumerate() {
            let deleted: HashSet<u32> = manifest.segments[number].deleted.iter().copied().collect();
            for row in (0..segment.rows as u32).filter(|row| !deleted.contains(row)) {
                let id = segment.id(row as usize);
                if places
                    .insert(id.to_string(), Place::Stored(number, row))
                    .is_some()
                {
                    let path = folder.join(&manifest.segments[number].file);
                    return Err(IndexError::damaged(
                        &path,
                        format!("the id '{id}' occurs twice"),
                    ));
                }
            }
        }
        let writer = Self::new(folder, manifest, places, lock);
        writer.remove_unused()?;
        Ok(writer)
    }

    fn new(
        folder: &Path,
        manifest: Manifest,
        places: HashMap<String, Place>,
        lock: FolderLock,
    ) -> Self {
        Self {
            folder: folder.to_path_buf(),
            pending: SegmentBuilder::new(manifest.dtype, manifest.dimension),
            pending_deleted: Vec::new(),
            places,
            deleted: BTreeMap::new(),
            added: 0,
            manifest,
            _lock: lock,
        }
    }

    /// Returns the index's properties.
    pub fn options(&self) -> IndexOptions {
        options(&self.manifest)
    }

    /// Number of vectors that can be found after a commit.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// `true` if there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// See [`VectorIndex::check_model`].
    ///
    /// # Errors
    /// [`IndexError::OtherModel`].
    pub fn check_model(&self, model: &ModelId) -> Result<(), IndexError> {
        check_model(&self.folder, &self.manifest.model, model)
    }

    /// As [`Self::check_model`]; an index whose model is not known gets this one with the next commit.
    ///
    /// # Errors
    /// [`IndexError::OtherModel`].
    pub fn set_model(&mut self, model: &ModelId) -> Result<(), IndexError> {
        self.check_model(model)?;
        if self.manifest.model.hash.is_empty() {
            self.manifest.model = model.clone();
        }
        Ok(())
    }

    /// Adds a vector, `[dimension]`, with metadata as JSON or empty.
    ///
    /// # Errors
    /// [`IndexError`]: an empty id or one that is in the index, a vector of another dimension, with a component that is not finite or too
    /// large for the dtype, of zeros under the cosine; a segment file that cannot be written.
    pub fn add(&mut self, id: &str, vector: &[f32], metadata: &str) -> Result<(), IndexError> {
        if self.places.contains_key(id) {
            return Err(IndexError::DuplicateId { id: id.to_string() });
        }
        self.update(id, vector, metadata)?;
        Ok(())
    }

    /// Adds a vector, or replaces the one of this id. Returns `true` if it replaced one.
    ///
    /// # Errors
    /// As for [`Self::add`], but for an id that is in the index.
    pub fn update(&mut self, id: &str, vector: &[f32], metadata: &str) -> Result<bool, IndexError> {
        let number = self.added + 1;
        if id.is_empty() {
            return Err(IndexError::EmptyId { number });
        }
        let vector = prepared(vector, &self.options(), self.manifest.dtype, || {
            format!("document '{id}'")
        })?;
        let replaced = self.delete(id);
        let row = self.pending.len() as u32;
        self.pending.push(id, &vector, metadata);
        self.places.insert(id.to_string(), Place::Pending(row));
        self.added = number;
        if self.pending.len() == SEGMENT_ROWS {
            self.flush()?;
        }
        Ok(replaced)
    }

    /// Deletes a vector. Returns `false` if the index has no such id.
    pub fn delete(&mut self, id: &str) -> bool {
        match self.places.remove(id) {
            None => false,
            Some(Place::Stored(entry, row)) => {
                self.deleted.entry(entry).or_default().insert(row);
                true
            }
            Some(Place::Pending(row)) => {
                self.pending_deleted.push(row);
                true
            }
        }
    }

    /// Writes the pending rows into a segment file, which no manifest lists yet.
    fn flush(&mut self) -> Result<(), IndexError> {
        if self.pending.len() == 0 {
            return Ok(());
        }
        let empty = SegmentBuilder::new(self.manifest.dtype, self.manifest.dimension);
        let builder = std::mem::replace(&mut self.pending, empty);
        let mut deleted = std::mem::take(&mut self.pending_deleted);
        deleted.sort_unstable();
        let rows = builder.len();
        let file = names::segment(self.manifest.next_file);
        let checksum = builder.write(&self.folder.join(&file))?;
        self.manifest.next_file += 1;
        let number = self.manifest.segments.len();
        self.manifest.segments.push(Entry {
            file,
            rows,
            checksum,
            deleted,
        });
        for place in self.places.values_mut() {
            if let Place::Pending(row) = *place {
                *place = Place::Stored(number, row);
            }
        }
        Ok(())
    }

    /// Publishes all changes in one step.
    ///
    /// # Errors
    /// A file that cannot be written; the index is then as it was before.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        self.flush()?;
        for (number, rows) in std::mem::take(&mut self.deleted) {
            let deleted = &mut self.manifest.segments[number].deleted;
            deleted.extend(rows);
            deleted.sort_unstable();
        }
        self.manifest.generation += 1;
        self.manifest.publish(&self.folder)
    }

    /// Commits, and rewrites the index without deleted rows and in full segments. Returns the number of rows removed.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn compact(&mut self) -> Result<usize, IndexError> {
        self.commit()?;
        let old = self.manifest.clone();
        let rows: usize = old.segments.iter().map(|entry| entry.rows).sum();
        let removed = rows - old.live();
        let full = |entry: &Entry| entry.rows == SEGMENT_ROWS;
        let tidy =
            old.segments.len() < 2 || old.segments[..old.segments.len() - 1].iter().all(full);
        if removed == 0 && tidy {
            return Ok(0);
        }
        self.manifest.segments.clear();
        self.places.clear();
        for (entry, segment) in old
            .segments
            .iter()
            .zip(open_segments(&self.folder, &old, true)?)
        {
            let mut deleted = entry.deleted.iter().copied().peekable();
            for row in 0..segment.rows {
                if deleted.next_if(|next| *next as usize == row).is_some() {
                    continue;
                }
                let place = Place::Pending(self.pending.len() as u32);
                let (vector, scale) = (segment.vector(row), segment.scale(row));
                self.pending
                    .push_scaled(segment.id(row), &vector, segment.metadata(row), scale);
                self.places.insert(segment.id(row).to_string(), place);
                if self.pending.len() == SEGMENT_ROWS {
                    self.flush()?;
                }
            }
        }
        self.commit()?;
        self.remove_unused()?;
        Ok(removed)
    }

    /// Commits and opens the index for search.
    ///
    /// # Errors
    /// As for [`Self::commit`] and [`VectorIndex::open`].
    pub fn finish(mut self) -> Result<VectorIndex, IndexError> {
        self.commit()?;
        VectorIndex::open(&self.folder)
    }

    /// Removes segment files that the manifest does not list, and unfinished ones.
    fn remove_unused(&self) -> Result<(), IndexError> {
        let used: HashSet<&str> = self
            .manifest
            .segments
            .iter()
            .map(|entry| entry.file.as_str())
            .collect();
        let folder = std::fs::read_dir(&self.folder).map_err(IndexError::io(&self.folder))?;
        for file in folder {
            let file = file.map_err(IndexError::io(&self.folder))?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            let unused = || {
                let listed = !names::is_segment(&name) || used.contains(&*name);
                // A file of this name that is no segment is not the index's.
                !listed && segment::is_segment(&file.path())
            };
            if unused() || is_unfinished(&name) {
                std::fs::remove_file(file.path()).map_err(IndexError::io(&file.path()))?;
            }
        }
        Ok(())
    }
}

/// Locks a folder until the lock is dropped. Without locks two writers could publish over each other: a file system without them is refused.
fn lock(folder: &Path) -> Result<FolderLock, IndexError> {
    FolderLock::acquire_strictly(folder).map_err(|error| match error {
        LockError::Held { path, owner } => IndexError::Locked { path, owner },
        foreign @ LockError::Foreign(_) => IndexError::Lock(foreign),
        LockError::Io { path, source } => IndexError::Io { path, source },
    })
}
