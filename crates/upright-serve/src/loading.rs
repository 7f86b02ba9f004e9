//! Loading and unloading of adapters by request.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::State as Extract, http::HeaderMap};

use crate::{
    allowed::AllowedFolder,
    guard,
    protocol::{
        adapters::{LoadAdapter, UnloadAdapter},
        error::ApiError,
    },
    routes::{Shared, State, blocking},
};

/// Time in which unloaded adapters must finish their answers to make room for another adapter.
const LEAVING: Duration = Duration::from_secs(30);

/// The folder below which requests may name adapters.
///
/// # Errors
/// There is none.
fn allowed(state: &State) -> Result<&AllowedFolder, ApiError> {
    let allowed = state.allowed.as_ref();
    allowed.ok_or_else(ApiError::loading_not_allowed)
}

/// Loads an adapter on a thread of its own. Other requests go on meanwhile.
pub(crate) async fn load(
    Extract(state): Extract<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, ApiError> {
    allowed(&state)?;
    let request = LoadAdapter::parse(guard::fields(&state, &headers, body).await?)?;
    let reservation = state.models.reserve(&request.name, request.in_place)?;
    let room = tokio::time::timeout(LEAVING, state.models.room());
    let Ok(room) = room.await else {
        return Err(ApiError::adapters_still_answer());
    };
    // The work goes on if the client leaves.
    let owned = Arc::clone(&state);
    blocking(move || {
        let folder = allowed(&owned)?.adapter(&request.path)?;
        let opened = (owned.models.open)(&folder);
        let (adapter, speech) = opened.map_err(|error| ApiError::of_path(&error))?;
        let handle = owned.engine.add(adapter, room);
        reservation.publish(speech, handle);
        let name = request.name;
        Ok(format!(
            "Success: LoRA adapter '{name}' added successfully."
        ))
    })
    .await
}

/// Unloads an adapter. Its answers in progress are finished.
pub(crate) async fn unload(
    Extract(state): Extract<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, ApiError> {
    allowed(&state)?;
    let request = UnloadAdapter::parse(guard::fields(&state, &headers, body).await?)?;
    state.models.unload(&request.name)?;
    let name = request.name;
    Ok(format!(
        "Success: LoRA adapter '{name}' removed successfully."
    ))
}
