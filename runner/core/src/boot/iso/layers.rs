//! File systems stacked on each other, as overlayfs stacks them: Ubuntu's live system is several squashfs files.

use std::io;

use super::files::{Entry, Files, Kind};

/// File systems seen as one; the first lies on top.
#[derive(Debug)]
pub struct Layers<F>(pub Vec<F>);

impl<F: Files> Files for Layers<F> {
    /// The layers that have it, top first, and what it is there. A file has one.
    type Node = Vec<(usize, F::Node)>;

    fn root(&mut self) -> io::Result<Self::Node> {
        self.0.iter_mut().enumerate().map(|(place, layer)| Ok((place, layer.root()?))).collect()
    }

    fn list(&mut self, folder: &Self::Node) -> io::Result<Vec<Entry<Self::Node>>> {
        let mut merged: Vec<Entry<Self::Node>> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (layer, node) in folder {
            for entry in self.0[*layer].list(node)? {
                let place = *places.entry(entry.name.clone()).or_insert(merged.len());
                match merged.get_mut(place) {
                    None => {
                        let (name, kind) = (entry.name, entry.kind);
                        merged.push(Entry { name, kind, node: vec![(*layer, entry.node)] });
                    }
                    // Folders show through each other, anything else hides what is below.
                    Some(above) if above.kind == Kind::Folder && entry.kind == Kind::Folder => {
                        above.node.push((*layer, entry.node));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(merged)
    }

    fn target(&mut self, link: &Self::Node) -> io::Result<String> {
        let (layer, node) = top(link)?;
        self.0[layer].target(node)
    }

    fn size(&mut self, file: &Self::Node) -> io::Result<u64> {
        let (layer, node) = top(file)?;
        self.0[layer].size(node)
    }

    fn read(&mut self, file: &Self::Node, most: usize) -> io::Result<Vec<u8>> {
        let (layer, node) = top(file)?;
        self.0[layer].read(node, most)
    }
}

fn top<N>(nodes: &[(usize, N)]) -> io::Result<(usize, &N)> {
    let (layer, node) = nodes.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok((*layer, node))
}

#[cfg(test)]
mod tests {
    use super::super::files::memory::Memory;
    use super::*;

    #[test]
    fn the_upper_file_hides_the_lower_and_folders_join() {
        let upper = Memory::of(&[("/etc/os-release", "upper"), ("/usr/bin/calamares", "")]);
        let lower =
            Memory::of(&[("/etc/os-release", "lower"), ("/etc/hostname", "h"), ("/usr/lib/x", "->y")]);
        let mut layers = Layers(vec![upper, lower]);
        assert_eq!(layers.read_at("/etc/os-release", 9).unwrap().unwrap(), b"upper");
        assert_eq!(layers.read_at("/etc/hostname", 9).unwrap().unwrap(), b"h");
        assert_eq!(layers.list_at("/usr").unwrap().len(), 2);
        let link = layers.find_link("/usr/lib/x").unwrap().unwrap();
        assert_eq!(layers.target(&link.node).unwrap(), "y");
    }
}
