//! What a file defines, by name: items, and the functions of impls and traits. Tests are left out.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};

use crate::imports::names;

/// Names of everything that is defined in a file; a function of an impl or a trait also as `Type::function`.
pub fn in_file(text: &str) -> syn::Result<BTreeSet<String>> {
    let file = syn::parse_file(text)?;
    let mut found = Defined::default();
    found.visit_file(&file);
    Ok(found.names)
}

#[derive(Default)]
struct Defined {
    names: BTreeSet<String>,
    /// The type or trait whose functions come.
    of: Option<String>,
}

impl Defined {
    fn function(&mut self, name: &syn::Ident) {
        if let Some(of) = &self.of {
            self.names.insert(format!("{of}::{name}"));
        }
        self.names.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Defined {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if names::is_test(item) {
            return;
        }
        self.names.extend(names::defined(item));
        let outside = self.of.take();
        self.of = match item {
            syn::Item::Impl(item) => type_name(&item.self_ty),
            syn::Item::Trait(item) => Some(item.ident.to_string()),
            _ => None,
        };
        visit::visit_item(self, item);
        self.of = outside;
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.function(&function.sig.ident);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.function(&function.sig.ident);
    }

    /// What is defined inside of functions is nothing that a page names.
    fn visit_block(&mut self, _: &'ast syn::Block) {}
}

fn type_name(of: &syn::Type) -> Option<String> {
    match of {
        syn::Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_functions_count_and_tests_and_inner_ones_do_not() {
        let names = in_file(
            "use a::Used; pub fn free() { fn inner() {} } enum E { V } trait T { fn asked(&self); } \
             impl<'a> T for b::S<'a> { fn asked(&self) {} } mod m { struct Deep; } \
             #[cfg(test)] mod tests { fn a_test() {} }",
        )
        .unwrap();
        let expected = ["Deep", "E", "S::asked", "T", "T::asked", "asked", "free"];
        assert_eq!(names.iter().collect::<Vec<_>>(), expected);
        assert!(in_file("fn {").is_err());
    }
}
