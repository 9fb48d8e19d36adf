//! Brands that are not as they must be: each mistake is told with the file and with what it must be.

use std::fs;

use isokiln_tests::{Project, repository};

const STAGE: &str = "\n[[stage]]\nname = \"brand\"\nuses = \"branding\"\nwith = { folder = \"brand\" }\n";

/// What is wrong, in `brand.toml` or in a picture, and what is said of it.
struct Mistake {
    change: fn(&Project),
    says: [&'static str; 2],
}

const MISTAKES: [Mistake; 9] = [
    Mistake {
        change: |project| fs::remove_file(project.path("brand/brand.toml")).expect("a file"),
        says: ["the folder holds no brand.toml", "isokiln kinds branding"],
    },
    Mistake {
        change: |project| project.edit("brand/brand.toml", "tagline =", "slogan ="),
        says: ["brand.toml: there is no \"slogan\"", "it knows colours, home, id,"],
    },
    Mistake {
        change: |project| project.edit("brand/brand.toml", "A desktop", "A $desktop"),
        says: ["brand.toml: tagline holds quotes", "leave them out"],
    },
    Mistake {
        change: |project| project.edit("brand/brand.toml", "id = \"ailinux\"", "id = \"AI Linux\""),
        says: ["brand.toml: id \"AI Linux\" is not valid", "use lower-case letters"],
    },
    Mistake {
        change: |project| project.edit("brand/brand.toml", "\"#3fd0ff\"", "\"blue\""),
        says: ["colour highlight = \"blue\" is not valid", "write it as \"#0e1638\""],
    },
    Mistake {
        change: |project| fs::remove_file(project.path("brand/logo.png")).expect("a file"),
        says: ["there is no picture logo.png, which brand.toml names as logo", "add it to the folder"],
    },
    Mistake {
        change: |project| project.write("brand/mark.png", "<svg/>"),
        says: ["mark.png is no PNG", "save it as PNG"],
    },
    Mistake {
        change: |project| project.write("brand/isolinux.png", png(800, 600, 8)),
        says: ["isolinux.png is 800 x 600, but isolinux must be 640 x 480", "draw it in that size"],
    },
    Mistake {
        change: |project| project.write("brand/wallpaper.png", png(1920, 1080, 16)),
        says: ["wallpaper.png has 16 bits a channel or a palette", "8 bits of red, green and blue"],
    },
];

/// The head of a PNG of this size with so many bits a channel; nothing more of it is looked at.
fn png(width: u32, height: u32, bits: u8) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([bits, 2, 0, 0, 0]);
    bytes
}

#[test]
fn mistakes_in_a_brand_name_the_file_and_what_it_must_be() {
    let project = Project::tiny(STAGE);
    for mistake in &MISTAKES {
        for entry in fs::read_dir(repository().join("branding/ailinux")).expect("the brand") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                let bytes = fs::read(entry.path()).expect("a file");
                project.write(&format!("brand/{}", entry.file_name().display()), bytes);
            }
        }
        (mistake.change)(&project);
        let told = project.build(&[]).expect_code(1);
        told.says(mistake.says[0]).says(mistake.says[1]);
    }
    project.expect_no_residue();
}
