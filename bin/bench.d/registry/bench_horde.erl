%% Horde.Registry with the options' defaults, where the variable HORDE names its ebin directory and those of what it needs.
-module(bench_horde).
-behaviour(adapter).
-export([paths/0, start/0, ready/1, await_down/1, register/2, unregister/2, whereis/1, count/0]).

-define(REGISTRY, 'BenchHorde').

paths() -> string:lexemes(os:getenv("ELIXIR_PATHS") ++ ":" ++ os:getenv("HORDE"), ":").
start() ->
    {ok, _} = application:ensure_all_started(logger),
    'Elixir.Logger':configure([{level, emergency}]),
    {ok, _} = application:ensure_all_started(horde),
    Child = 'Elixir.Horde.Registry':child_spec([{name, ?REGISTRY}, {keys, unique}, {members, auto}]),
    {ok, _} = supervisor:start_child(kernel_safe_sup, Child),
    ok.
ready(Peers) -> Peers -- [Node || {_, Node} <- gen_server:call(?REGISTRY, members)] =:= [].
await_down(Node) ->
    monitor_node(Node, true),
    receive {nodedown, Node} -> ok end.
register(Name, Pid) ->
    case 'Elixir.Horde.Registry':register_name({?REGISTRY, Name}, Pid) of
        yes -> ok;
        no -> {error, taken}
    end.
unregister(Name, Pid) -> gen_server:call(?REGISTRY, {unregister, Name, Pid}), ok.
whereis(Name) -> 'Elixir.Horde.Registry':whereis_name({?REGISTRY, Name}).
count() -> ets:info(list_to_existing_atom("keys_" ++ atom_to_list(?REGISTRY)), size).
