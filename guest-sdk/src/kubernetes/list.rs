//! Many objects of a kind.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Error, read};
use crate::host;

/// A list to fetch from the host's cache, which may be a moment behind the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T = Value> {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) label_selector: Option<String>,
    pub(crate) annotation_prefix: Option<String>,
    pub(crate) fields: Vec<String>,
    of: PhantomData<fn() -> T>,
}

impl<T> List<T> {
    /// All objects of a kind, in every namespace that the host watches, with all their fields.
    pub fn new(api_version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: None,
            label_selector: None,
            annotation_prefix: None,
            fields: Vec::new(),
            of: PhantomData,
        }
    }

    /// Only objects in this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only objects with these labels, as in `kubectl -l`.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    /// Only objects that carry an annotation whose key starts with this.
    pub fn annotation_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.annotation_prefix = Some(prefix.into());
        self
    }

    /// Adds fields to fetch, as dotted paths such as `spec.replicas`. `apiVersion`, `kind` and the object's namespace,
    /// name, uid and resourceVersion always come along.
    pub fn fields<S: Into<String>>(mut self, paths: impl IntoIterator<Item = S>) -> Self {
        self.fields.extend(paths.into_iter().map(Into::into));
        self
    }

    /// The same list, read as another type.
    pub fn typed<U>(self) -> List<U> {
        List {
            api_version: self.api_version,
            kind: self.kind,
            namespace: self.namespace,
            label_selector: self.label_selector,
            annotation_prefix: self.annotation_prefix,
            fields: self.fields,
            of: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> List<T> {
    /// Asks the host.
    ///
    /// # Errors
    /// [`Error`]; [`Error::NotFound`] when the cluster does not know the kind.
    pub fn fetch(self) -> Result<Vec<T>, Error> {
        let what = format!("an object in the list of {} {}", self.api_version, self.kind);
        let texts = host::list(&self.typed())?;
        texts
            .into_iter()
            .map(|text| read(&text, || what.clone()))
            .collect()
    }
}
