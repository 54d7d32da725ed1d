//! JSON lines, to standard output or to a file that is added to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use graft_shared::error::{Context, Result};

use super::{Sink, Wanted};

/// Lines that wait for whoever reads them.
const ROOM: usize = 256;

/// `-` is standard output. The file is opened anew when it was moved away, as logrotate does.
///
/// # Errors
/// When the file can't be opened.
pub(crate) fn start(path: &Path, wanted: Wanted) -> Result<Sink> {
    if path == Path::new("-") {
        return Sink::on_thread("lines", ROOM, wanted, |event| {
            // With nobody to read it there is nothing to do.
            let _ = writeln!(io::stdout().lock(), "{}", event.json);
        });
    }
    let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
    let mut file = open(path).with_context(|| format!("can't open `{}`", path.display()))?;
    let path = path.to_path_buf();
    Sink::on_thread("lines", ROOM, wanted, move |event| {
        if !is(&file, &path)
            && let Ok(new) = open(&path)
        {
            file = new;
        }
        let mut line = event.json.clone();
        line.push('\n');
        // On a full disk the next line may find room again.
        let _ = file.write_all(line.as_bytes());
    })
}

/// Whether the file is the one that is at the path.
fn is(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
