%% What is under comparison: a module each, for BEAM nodes. The process `bench` of a node answers the harness, one request in a
%% process of its own each; a Rust node (native/tiebeam_node/examples/leadership.rs) answers the same:
%%
%%   leader, active            the node that leads, or that is active, as far as this one knows; nil
%%   write                     ok, once a write is acknowledged
%%   {lead, Node}              ok, once leadership is handed over to it; whoever leads is asked
%%   {stand_by, Pid}           ok; from now on Pid gets {active, Node, MicrosecondsOfSystemTime} whenever this node becomes active
%%   step_down                 ok, once whoever is active is so no more
%%   {writes, Clients, Time}   so many clients write without a pause for so many milliseconds: the microseconds that each write took
%%
%% Anything else is an error of the moment; the harness asks again.
-module(subject).
-export([start/2, session/0, cooldown/0]).

%% Code paths that its nodes need beside those of the harness.
-callback paths() -> [file:filename()].
%% Runs on each of the voters, also again after it was killed.
-callback start(#{voters := [node()], disk := file:filename() | memory}) -> ok.
-callback leader() -> node() | nil.
-callback active() -> node() | nil.
-callback write(Key :: binary()) -> ok | {error, term()}.
-callback lead(node()) -> ok | {error, term()}.
%% The function is called whenever this node becomes active.
-callback stand_by(fun(() -> term())) -> ok.
-callback step_down() -> ok | {error, term()}.

-optional_callbacks([leader/0, write/1, lead/1, active/0, stand_by/1, step_down/0]).

%% How long what a node holds outlives it, and how long a node that stepped down leaves it to others, in milliseconds.
session() -> 1000.
cooldown() -> 100.

start(Adapter, Settings) ->
    ok = Adapter:start(Settings),
    true = register(bench, spawn(fun() -> serve(Adapter) end)),
    ok.

serve(Adapter) ->
    receive
        {'$gen_call', From, Request} ->
            spawn(fun() -> gen_server:reply(From, try answer(Adapter, Request) catch _:Why -> {error, Why} end) end),
            serve(Adapter)
    end.

answer(Adapter, leader) -> Adapter:leader();
answer(Adapter, active) -> Adapter:active();
answer(Adapter, write) -> Adapter:write(<<"key">>);
answer(Adapter, {lead, Node}) -> Adapter:lead(Node);
answer(Adapter, {stand_by, Pid}) -> Adapter:stand_by(fun() -> Pid ! {active, node(), os:system_time(microsecond)} end);
answer(Adapter, step_down) -> Adapter:step_down();
answer(Adapter, {writes, Clients, Time}) ->
    Until = erlang:monotonic_time(microsecond) + Time * 1000,
    Writers = [
        spawn_monitor(fun() -> exit({wrote, write_until(Adapter, <<"key ", (integer_to_binary(I))/binary>>, Until, [])}) end)
     || I <- lists:seq(1, Clients)
    ],
    lists:append([receive {'DOWN', Monitor, _, _, {wrote, Times}} -> Times; {'DOWN', Monitor, _, _, Why} -> exit(Why) end
                  || {_, Monitor} <- Writers]).

write_until(Adapter, Key, Until, Times) ->
    Began = erlang:monotonic_time(microsecond),
    case Began < Until of
        true ->
            write(Adapter, Key),
            write_until(Adapter, Key, Until, [erlang:monotonic_time(microsecond) - Began | Times]);
        false ->
            Times
    end.

%% Until it is acknowledged; the harness gives up some time.
write(Adapter, Key) ->
    case Adapter:write(Key) of
        ok -> ok;
        {error, _} -> write(Adapter, Key)
    end.
