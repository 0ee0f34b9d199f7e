//! What `wit/plugin.wit` looks like in Rust.
//!
//! Only the largest world is generated; a component that exports less is met by loading the indices of each exported
//! interface by itself. Logging and configuration never wait, so they are plain functions.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "resource-scaler-with-ingress",
    imports: {
        "dormouse:plugin/logging": trappable,
        "dormouse:plugin/config": trappable,
        default: async | trappable,
    },
    exports: { default: async },
});
