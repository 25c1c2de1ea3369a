%% Tiebeam.Leader, Tiebeam.KV and Tiebeam.Singleton, with the options' defaults but for the session.
-module(bench_tiebeam).
-behaviour(subject).
-export([paths/0, start/1, leader/0, active/0, write/1, lead/1, stand_by/1, step_down/0]).

-define(CLUSTER, 'Elixir.Bench.Cluster').
-define(LEADER, 'Elixir.Tiebeam.Leader').
-define(SINGLETON, 'Elixir.Tiebeam.Singleton').

paths() -> string:lexemes(os:getenv("TIEBEAM_PATHS"), ":").

start(#{voters := Voters, disk := Disk}) ->
    {ok, _} = application:ensure_all_started(tiebeam),
    Child = 'Elixir.Tiebeam':child_spec([
        {name, ?CLUSTER}, {join, Voters}, {voters, Voters}, {session_ttl, subject:session()},
        {data_dir, case Disk of memory -> memory; _ -> unicode:characters_to_binary(Disk) end}
    ]),
    {ok, _} = supervisor:start_child(kernel_safe_sup, Child),
    ok.

leader() ->
    case ?LEADER:leader(?CLUSTER) of
        {ok, Node, _Term} -> Node;
        none -> nil
    end.

active() ->
    case ?SINGLETON:whereis(?CLUSTER, <<"bench">>) of
        {Node, _Token} -> Node;
        nil -> nil
    end.

write(Key) ->
    case 'Elixir.Tiebeam.KV':put(?CLUSTER, Key, <<"sixteen letters!">>) of
        {ok, _Revision} -> ok;
        Error -> Error
    end.

lead(Node) ->
    case ?LEADER:step_down(?CLUSTER, Node) of
        {ok, _Term} -> ok;
        Error -> Error
    end.

stand_by(Told) ->
    Child = ?SINGLETON:child_spec([
        {cluster, ?CLUSTER}, {name, <<"bench">>}, {cooldown, subject:cooldown()}, {on_active, fun(_Token) -> Told() end}
    ]),
    {ok, _} = supervisor:start_child(kernel_safe_sup, Child),
    ok.

step_down() -> ?SINGLETON:step_down(?CLUSTER, <<"bench">>).
