%% Tiebeam.Registry, in a cluster with the options' defaults.
-module(bench_tiebeam).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0, bare/1]).

-define(CLUSTER, 'Elixir.Bench.Cluster').
-define(REGISTRY, 'Elixir.Tiebeam.Registry').

paths() -> string:lexemes(os:getenv("TIEBEAM_PATHS"), ":").

start() ->
    {ok, _} = application:ensure_all_started(tiebeam),
    Child = 'Elixir.Tiebeam':child_spec([{name, ?CLUSTER}]),
    {ok, _} = supervisor:start_child(kernel_safe_sup, Child),
    ok.

ready(Peers) ->
    Alive = [Node || #{node := Node, status := alive} <- 'Elixir.Tiebeam':members(?CLUSTER)],
    Peers -- Alive =:= [].

%% Its own verdict: a connection that is gone is only a suspicion.
await_down(Node) ->
    ok = 'Elixir.Tiebeam':subscribe(?CLUSTER),
    receive {tiebeam, ?CLUSTER, {member, down, #{node := Node}}} -> ok end.

register(Name, Pid) -> ?REGISTRY:register(?CLUSTER, Name, Pid).
unregister(Name, _Pid) -> ?REGISTRY:unregister(?CLUSTER, Name).
whereis(Name) ->
    case ?REGISTRY:whereis(?CLUSTER, Name) of
        nil -> undefined;
        Pid -> Pid
    end.
count() -> ?REGISTRY:count(?CLUSTER).

%% A look-up in the same table, with nothing around it.
bare(Name) -> ets:lookup(?CLUSTER, {default, Name}).
