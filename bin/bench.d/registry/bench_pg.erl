%% OTP's pg: groups of one member each. Nothing keeps a name to one process, so it has less to do.
-module(bench_pg).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0]).

paths() -> [].
start() -> {ok, _} = pg:start(bench), ok.
ready(Peers) ->
    %% The nodes whose groups it has heard of.
    Remote = element(4, sys:get_state(bench)),
    Peers -- [node(Pid) || Pid <- maps:keys(Remote)] =:= [].
await_down(Node) ->
    monitor_node(Node, true),
    receive {nodedown, Node} -> ok end.
register(Name, Pid) -> pg:join(bench, Name, Pid).
unregister(Name, Pid) -> pg:leave(bench, Name, Pid).
whereis(Name) ->
    case pg:get_members(bench, Name) of
        [Pid | _] -> Pid;
        [] -> undefined
    end.
count() -> ets:info(bench, size).
