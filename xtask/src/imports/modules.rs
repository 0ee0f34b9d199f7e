//! The modules of a crate, as its files declare them, and what each of them names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, Lit, Meta, UseTree};

use super::names;

/// A module by its path from the root of its crate, which is empty for the root.
pub type ModulePath = Vec<String>;

/// What a module has.
#[derive(Default)]
pub struct Module {
    pub file: PathBuf,
    /// Names of items.
    pub items: BTreeSet<String>,
    /// Names that `use` brings in, with what they stand for; not resolved.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// `use …::*`.
    pub globs: Vec<Vec<String>>,
    /// Every path that begins with `crate`, `self` or `super`, or in a `use` with a submodule.
    pub paths: BTreeSet<Vec<String>>,
}

/// The modules of one crate, without those of tests.
pub struct Crate {
    pub name: String,
    pub modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Reads the root file and every file that a `mod` in it leads to.
    pub fn read(name: &str, root: &Path) -> Result<Self> {
        let mut crate_ = Self {
            name: name.to_owned(),
            modules: BTreeMap::new(),
        };
        let folder = root.parent().context("a file without a folder")?;
        crate_.file(root, folder, Vec::new())?;
        Ok(crate_)
    }

    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// `folder`: where the files of its submodules are.
    fn file(&mut self, file: &Path, folder: &Path, path: ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.items(file, folder, path, &parsed.items)
    }

    fn items(&mut self, file: &Path, folder: &Path, path: ModulePath, items: &[Item]) -> Result<()> {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        for item in items.iter().filter(|item| !names::is_test(item)) {
            match item {
                Item::Mod(inner) => self.module(file, folder, &path, inner)?,
                Item::Use(import) => module.import(&import.tree, Vec::new()),
                _ => module.items.extend(names::defined(item)),
            }
        }
        module.paths.extend(names::paths(items));
        self.modules.insert(path, module);
        Ok(())
    }

    fn module(&mut self, file: &Path, folder: &Path, path: &[String], inner: &ItemMod) -> Result<()> {
        let name = inner.ident.to_string();
        let mut inside = path.to_vec();
        inside.push(name.clone());
        let below = folder.join(&name);
        if let Some((_, items)) = &inner.content {
            return self.items(file, &below, inside, items);
        }
        if let Some(named) = path_attribute(&inner.attrs) {
            let file = file.parent().unwrap_or(folder).join(named);
            return self.file(&file, file.parent().unwrap_or(folder), inside);
        }
        let beside = folder.join(format!("{name}.rs"));
        if beside.is_file() {
            self.file(&beside, &below, inside)
        } else {
            self.file(&below.join("mod.rs"), &below, inside)
        }
    }

    /// The module in which what a path of a module leads to is defined. None: in another crate, or not to be found.
    pub fn target(&self, from: &[String], path: &[String]) -> Option<ModulePath> {
        self.resolve(from, path, 0)
    }

    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        // Names that lead to themselves do not compile, but a glob may come round.
        if depth > 16 {
            return None;
        }
        let mut at = from.to_vec();
        let mut rest = path;
        let mut named = false;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => at = Vec::new(),
                "self" => {}
                "super" => {
                    at.pop()?;
                }
                name => {
                    let module = self.modules.get(&at)?;
                    let mut below = at.clone();
                    below.push(name.to_owned());
                    if self.modules.contains_key(&below) {
                        at = below;
                    } else if let Some(alias) = module.aliases.get(name) {
                        let mut longer = alias.clone();
                        longer.extend_from_slice(after);
                        return self
                            .resolve(&at, &longer, depth + 1)
                            .or_else(|| named.then(|| at.clone()));
                    } else if module.items.contains(name) {
                        return Some(at);
                    } else {
                        let through = module.globs.iter().find_map(|glob| {
                            let mut longer = glob.clone();
                            longer.extend_from_slice(rest);
                            self.resolve(&at, &longer, depth + 1)
                        });
                        return through.or_else(|| named.then(|| at.clone()));
                    }
                }
            }
            named = true;
            rest = after;
        }
        named.then_some(at)
    }
}

impl Module {
    fn import(&mut self, tree: &UseTree, mut prefix: Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, prefix.clone());
                }
            }
            UseTree::Glob(_) => {
                self.paths.insert(prefix.clone());
                self.globs.push(prefix);
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                // `use a::{self}` names `a`.
                if name != "self" {
                    prefix.push(name);
                }
                self.alias(prefix.last().cloned(), prefix);
            }
            UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                if name != "self" {
                    prefix.push(name);
                }
                self.alias(Some(rename.rename.to_string()), prefix);
            }
        }
    }

    fn alias(&mut self, name: Option<String>, path: Vec<String>) {
        // `use serde;` is a name for itself.
        if let Some(name) = name.filter(|name| path.len() > 1 || path.first() != Some(name)) {
            self.aliases.insert(name, path.clone());
        }
        self.paths.insert(path);
    }
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit {
                lit: Lit::Str(text), ..
            }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}
