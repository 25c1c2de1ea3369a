%% OTP's global.
-module(bench_global).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0]).

paths() -> [].
start() -> ok.
ready(Peers) -> Peers -- gen_server:call(global_name_server, get_synced) =:= [].
await_down(Node) ->
    monitor_node(Node, true),
    receive {nodedown, Node} -> ok end.
register(Name, Pid) ->
    case global:register_name(Name, Pid) of
        yes -> ok;
        no -> {error, taken}
    end.
unregister(Name, _Pid) -> global:unregister_name(Name), ok.
whereis(Name) -> global:whereis_name(Name).
count() -> ets:info(global_names, size).
