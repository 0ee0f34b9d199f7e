//! What `wit/plugin.wit` looks like in Rust.
//!
//! All of it is generated as one world; a component that exports less is met by loading the indices of each exported
//! interface by itself. What never waits is a plain function.

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package dormouse:host;
        world everything {
            include dormouse:plugin/resource-scaler-with-ingress@0.1.0;
            export dormouse:plugin/about@0.1.0;
            export dormouse:plugin/evaluator@0.1.0;
            export dormouse:plugin/trigger@0.1.0;
        }
    ",
    world: "dormouse:host/everything",
    with: {
        "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
        "wasi:random": wasmtime_wasi::p2::bindings::random,
    },
    imports: {
        "dormouse:plugin/logging": trappable,
        "dormouse:plugin/config": trappable,
        "dormouse:plugin/time": trappable,
        "dormouse:plugin/call-context": trappable,
        default: async | trappable,
    },
    exports: { default: async },
    // A record may also come as JSON, from who has no component: see `resource_of_record`.
    additional_derives: [serde::Deserialize],
});
