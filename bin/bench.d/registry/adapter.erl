%% What every registry under comparison does for the harness: one module each.
-module(adapter).

%% Code paths that its nodes need beside those of the harness.
-callback paths() -> [file:filename()].
%% Runs on every node, before the nodes are connected.
-callback start() -> ok.
%% Its channel to all of these nodes is up.
-callback ready([node()]) -> boolean().
%% Returns when this registry holds the node for gone.
-callback await_down(node()) -> ok.
-callback register(Name :: binary(), pid()) -> ok | {error, term()}.
-callback unregister(Name :: binary(), pid()) -> ok | {error, term()}.
-callback whereis(Name :: binary()) -> pid() | undefined.
%% How many names this node sees, in constant time: it is polled.
-callback count() -> non_neg_integer().
