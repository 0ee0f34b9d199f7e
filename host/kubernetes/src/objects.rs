//! Kubernetes objects of any kind as JSON, for plugins, and for whoever looks at workloads of any kind.
//!
//! Grants are checked by the caller. What is listed again and again is kept up to date by a watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use dormouse_model::ObjectKey;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use kube::Resource;
use kube::api::{DynamicObject, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;

use crate::discovery::Kind;
pub use crate::fields::pruned as fields_of;
use crate::fields::{Fields, pruned};
pub use crate::lists::ListQuery;
use crate::lists::{self, Lists, OwnersPart, Text};
use crate::raw::{parse, send};
use crate::{ApiServer, ClusterError, Scope};

/// Largest single object. etcd accepts 1.5 MiB by default.
const OBJECT_LIMIT: usize = 4 * 1024 * 1024;
/// Largest page of a list, and largest list before pruning.
const LIST_LIMIT: usize = 128 * 1024 * 1024;
/// Objects in one page.
const PAGE: u32 = 500;

/// Why a request for an object did not succeed.
#[derive(Clone, Debug, Error)]
pub enum ObjectError {
    /// No such object, or no such kind.
    #[error("{0}")]
    NotFound(String),
    /// The object changed in between, or exists already.
    #[error("{0}")]
    Conflict(String),
    /// The request is malformed, or refused as invalid.
    #[error("{0}")]
    Invalid(String),
    /// Not allowed by RBAC, quota or admission.
    #[error("{0}")]
    Forbidden(String),
    /// No answer in time.
    #[error("{0}")]
    Timeout(String),
    /// The API server cannot be reached or is overloaded.
    #[error("{0}")]
    Unavailable(String),
    /// The answer is larger than what is accepted.
    #[error("{0}")]
    TooLarge(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<ClusterError> for ObjectError {
    fn from(error: ClusterError) -> Self {
        let text = error.to_string();
        match error {
            ClusterError::NotFound { .. } | ClusterError::NoKind { .. } => Self::NotFound(text),
            ClusterError::Conflict { .. } | ClusterError::Exists { .. } | ClusterError::NameTaken { .. } => {
                Self::Conflict(text)
            }
            ClusterError::Invalid { .. } => Self::Invalid(text),
            ClusterError::Forbidden { .. } => Self::Forbidden(text),
            ClusterError::Timeout { .. } => Self::Timeout(text),
            ClusterError::Unavailable { .. } | ClusterError::Sync { .. } | ClusterError::Configuration(_) => {
                Self::Unavailable(text)
            }
            ClusterError::TooLarge { .. } => Self::TooLarge(text),
            ClusterError::Damaged(_) | ClusterError::Other { .. } => Self::Other(text),
        }
    }
}

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchType {
    /// RFC 7386.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes' own; not for custom resources.
    StrategicMerge,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// The object.
    None,
    /// Its status.
    Status,
    /// Its scale.
    Scale,
}

impl Subresource {
    fn path(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Status => Some("status"),
            Self::Scale => Some("scale"),
        }
    }
}

/// Objects of any kind, as JSON. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    server: ApiServer,
    /// Where a list without a namespace looks.
    scope: Scope,
    lists: Arc<Lists>,
    /// Ends the watches of lists.
    cancel: CancellationToken,
}

impl Objects {
    /// `owners_part` leaves of an object what its owner says with it: nothing else is a change ([`Objects::changes`]). The watches end
    /// with `cancel`.
    pub fn new(server: ApiServer, scope: Scope, owners_part: OwnersPart, cancel: CancellationToken) -> Self {
        Self {
            server,
            scope,
            lists: Arc::new(Lists::new(owners_part)),
            cancel,
        }
    }

    /// A number that rises when an object of a list that was asked for appeared, went, or was changed by its owner.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.lists.changes()
    }

    /// Reads an object, with these fields only (none named: all).
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get(&self, key: &ObjectKey, fields: &[String]) -> Result<Value, ObjectError> {
        let requests = self
            .requests(&key.api_version, &key.kind, key.namespace.as_deref())
            .await?;
        let request = built(requests.get(&key.name, &GetParams::default()))?;
        Ok(pruned(
            self.value(request, || format!("{} {}", key.kind, key.name))
                .await?,
            fields,
        ))
    }

    /// Lists objects, ordered by namespace and name, each as JSON text. From the second time on a watch answers.
    ///
    /// # Errors
    /// [`ObjectError`]; [`ObjectError::TooLarge`] when the list does not fit.
    pub async fn list(&self, query: &ListQuery) -> Result<Vec<Text>, ObjectError> {
        if let Some(known) = self.lists.get(query) {
            return Ok(known);
        }
        let listed = self.read_and_watch(query).await?;
        Ok(listed.iter().map(|object| object.to_string().into()).collect())
    }

    /// Those objects of a list that are named by namespace and name, each as JSON text. What is not there is left out. From the second time
    /// on a watch answers.
    ///
    /// # Errors
    /// As [`Objects::list`].
    pub async fn find(
        &self,
        query: &ListQuery,
        names: &BTreeSet<(String, String)>,
    ) -> Result<Vec<Text>, ObjectError> {
        if let Some(known) = self.lists.find(query, names) {
            return Ok(known);
        }
        let mut listed = self.read_and_watch(query).await?;
        listed.retain(|object| names.contains(&lists::key(object)));
        Ok(listed.iter().map(|object| object.to_string().into()).collect())
    }

    /// Reads a list, and begins to watch it.
    async fn read_and_watch(&self, query: &ListQuery) -> Result<Vec<Value>, ObjectError> {
        let kind = self.server.kind(&query.api_version, &query.kind).await?;
        let namespace = match &query.namespace {
            Some(namespace) => Some(namespace.as_str()),
            None => self.scope.namespace(),
        };
        let listed = self.read_objects(query, &kind, namespace).await?;
        let namespace = namespace.filter(|_| kind.namespaced);
        let client = self.server.client();
        self.lists
            .watch(query, &listed, client, &kind.resource, namespace, &self.cancel);
        Ok(listed)
    }

    /// Reads a list page by page.
    async fn read_objects(
        &self,
        query: &ListQuery,
        kind: &Kind,
        namespace: Option<&str>,
    ) -> Result<Vec<Value>, ObjectError> {
        let requests = self.requests_of(kind, namespace);
        let fields = Fields::of(&query.fields);
        let what = || format!("the list of {}", query.kind);
        let mut objects = Vec::new();
        let (mut token, mut size) = (None, 0_usize);
        loop {
            let mut params = ListParams::default().limit(PAGE);
            params.label_selector.clone_from(&query.label_selector);
            params.continue_token = token.take();
            let request = built(requests.list(&params))?;
            let timeout = self.server.request_timeout();
            let body = send(self.server.client(), request, LIST_LIMIT, timeout, what).await?;
            size = size.saturating_add(body.len());
            if size > LIST_LIMIT {
                return Err(ClusterError::TooLarge {
                    what: what(),
                    limit: LIST_LIMIT,
                }
                .into());
            }
            let mut page: Value = parse(&body, what)?;
            let next = page
                .pointer("/metadata/continue")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                objects.extend(items.into_iter().filter_map(|item| query.pick(item, &fields)));
            }
            if next.is_empty() {
                break;
            }
            token = Some(next);
        }
        objects.sort_by_cached_key(lists::key);
        Ok(objects)
    }

    /// Creates an object and returns it as stored. Its `apiVersion`, `kind`, namespace and name say where.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn create(&self, object: &Value, field_manager: &str) -> Result<Value, ObjectError> {
        let key = key_of(object)?;
        let requests = self
            .requests(&key.api_version, &key.kind, key.namespace.as_deref())
            .await?;
        let params = PostParams {
            dry_run: false,
            field_manager: Some(field_manager.to_owned()),
        };
        let request = built(requests.create(&params, object.to_string().into_bytes()))?;
        Ok(self
            .value(request, || format!("creating {} {}", key.kind, key.name))
            .await?)
    }

    /// Patches an object and returns it as stored. A `metadata.resourceVersion` in the body is a precondition.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn patch(
        &self,
        key: &ObjectKey,
        subresource: Subresource,
        kind: PatchType,
        body: &Value,
        field_manager: &str,
    ) -> Result<Value, ObjectError> {
        let requests = self
            .requests(&key.api_version, &key.kind, key.namespace.as_deref())
            .await?;
        let params = PatchParams {
            field_manager: Some(field_manager.to_owned()),
            ..PatchParams::default()
        };
        let patch = match kind {
            PatchType::Merge => Patch::Merge(body.clone()),
            PatchType::StrategicMerge => Patch::Strategic(body.clone()),
            PatchType::Json => Patch::Json(serde_json::from_value(body.clone()).map_err(|error| {
                ObjectError::Invalid(format!(
                    "a JSON patch is a list of operations (RFC 6902): {error}"
                ))
            })?),
        };
        let request = match subresource.path() {
            None => built(requests.patch(&key.name, &params, &patch))?,
            Some(path) => built(requests.patch_subresource(path, &key.name, &params, &patch))?,
        };
        Ok(self
            .value(request, || format!("patching {} {}", key.kind, key.name))
            .await?)
    }

    /// Server-side apply. Returns the object as stored.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn apply(
        &self,
        object: &Value,
        field_manager: &str,
        force: bool,
    ) -> Result<Value, ObjectError> {
        let key = key_of(object)?;
        let requests = self
            .requests(&key.api_version, &key.kind, key.namespace.as_deref())
            .await?;
        let params = PatchParams {
            field_manager: Some(field_manager.to_owned()),
            force,
            ..PatchParams::default()
        };
        let request = built(requests.patch(&key.name, &params, &Patch::Apply(object)))?;
        Ok(self
            .value(request, || format!("applying {} {}", key.kind, key.name))
            .await?)
    }

    /// Deletes an object. That it is gone already is no error.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        let requests = self
            .requests(&key.api_version, &key.kind, key.namespace.as_deref())
            .await?;
        let request = built(requests.delete(&key.name, &kube::api::DeleteParams::default()))?;
        match self
            .value(request, || format!("deleting {} {}", key.kind, key.name))
            .await
        {
            Ok(_) | Err(ClusterError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn value(
        &self,
        request: http::Request<Vec<u8>>,
        what: impl Fn() -> String,
    ) -> Result<Value, ClusterError> {
        let timeout = self.server.request_timeout();
        let body = send(self.server.client(), request, OBJECT_LIMIT, timeout, &what).await?;
        parse(&body, what)
    }

    async fn requests(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Request, ObjectError> {
        let found = self.server.kind(api_version, kind).await?;
        if found.namespaced && namespace.is_none() {
            return Err(ObjectError::Invalid(format!(
                "{kind} is namespaced: say which namespace"
            )));
        }
        Ok(self.requests_of(&found, namespace))
    }

    fn requests_of(&self, kind: &Kind, namespace: Option<&str>) -> Request {
        let namespace = namespace.filter(|_| kind.namespaced);
        Request::new(DynamicObject::url_path(&kind.resource, namespace))
    }
}

fn built(
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<http::Request<Vec<u8>>, ObjectError> {
    request.map_err(|error| ObjectError::Invalid(error.to_string()))
}

fn key_of(object: &Value) -> Result<ObjectKey, ObjectError> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let needed = |path: &str, name: &str| {
        text(path).ok_or_else(|| ObjectError::Invalid(format!("the object has no {name}")))
    };
    Ok(ObjectKey {
        api_version: needed("/apiVersion", "apiVersion")?,
        kind: needed("/kind", "kind")?,
        namespace: text("/metadata/namespace"),
        name: needed("/metadata/name", "metadata.name")?,
    })
}
