%% syn, where the variable SYN names its ebin directory.
-module(bench_syn).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0]).

paths() -> [os:getenv("SYN")].
start() ->
    {ok, _} = application:ensure_all_started(syn),
    ok = syn:add_node_to_scopes([bench]).
ready(Peers) -> Peers -- syn:subcluster_nodes(registry, bench) =:= [].
await_down(Node) ->
    monitor_node(Node, true),
    receive {nodedown, Node} -> ok end.
register(Name, Pid) -> syn:register(bench, Name, Pid).
unregister(Name, _Pid) -> syn:unregister(bench, Name).
whereis(Name) ->
    case syn:lookup(bench, Name) of
        {Pid, _Meta} -> Pid;
        undefined -> undefined
    end.
count() -> syn:registry_count(bench).
