%% Group (phoenixframework/group), where the variable GROUP names its ebin directory. It registers only the process that asks,
%% so that a registration here is a message to that process more.
-module(bench_group).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0]).

-define(GROUP, bench_group).

paths() -> string:lexemes(os:getenv("ELIXIR_PATHS") ++ ":" ++ os:getenv("GROUP"), ":").
start() ->
    {ok, _} = application:ensure_all_started(logger),
    'Elixir.Logger':configure([{level, emergency}]),
    {ok, _} = application:ensure_all_started(group),
    {ok, _} = supervisor:start_child(kernel_safe_sup, 'Elixir.Group':child_spec([{name, ?GROUP}, {log, false}])),
    persistent_term:put(?MODULE, [Table || Table <- ets:all(), is_atom(Table),
        string:find(atom_to_list(Table), "reg_by_key") =/= nomatch]),
    ok.
ready(Peers) -> Peers -- 'Elixir.Group':nodes(?GROUP) =:= [].
await_down(Node) ->
    monitor_node(Node, true),
    receive {nodedown, Node} -> ok end.
register(Name, Pid) -> work:in(Pid, fun() -> 'Elixir.Group':register(?GROUP, Name, #{}) end).
unregister(Name, Pid) -> work:in(Pid, fun() -> 'Elixir.Group':unregister(?GROUP, Name) end).
whereis(Name) ->
    case 'Elixir.Group':lookup(?GROUP, Name) of
        {Pid, _Meta} -> Pid;
        nil -> undefined
    end.
count() -> lists:sum([ets:info(Table, size) || Table <- persistent_term:get(?MODULE)]).
