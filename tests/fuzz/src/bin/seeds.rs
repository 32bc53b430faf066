//! Writes the seeds of every target to `corpus/`.

use std::{fs, io, path::Path};

use releq_fuzz::readers::READERS;

fn main() -> io::Result<()> {
    for reader in READERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(reader.name);
        fs::create_dir_all(&folder)?;
        for (number, bytes) in (reader.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), bytes)?;
        }
    }
    Ok(())
}
