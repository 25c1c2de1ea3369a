%% ra (github.com/rabbitmq/ra), with its own defaults: a machine that keeps keys. It has no claims that end with their holder.
-module(bench_ra).
-behaviour(subject).
-export([paths/0, start/1, leader/0, write/1, lead/1]).
%% What ra asks of a machine.
-export([init/1, apply/3]).

%% Its cluster, and the name of its process on each node.
-define(NAME, bench_log).

%% A member that follows sends who asks on to the leader that it knows of, which may stand still; so nobody waits long there.
-define(TIMEOUT, 100).

paths() -> string:lexemes(os:getenv("RA"), ":").

start(#{voters := Voters, disk := Disk}) ->
    {ok, _} = application:ensure_all_started(ra),
    Directory = case Disk of memory -> filename:join(os:getenv("BENCH_DIR"), "ra-" ++ atom_to_list(node())); _ -> Disk end,
    Settings = (ra_system:default_config())#{
        data_dir => Directory,
        wal_data_dir => Directory,
        %% It cannot do without a disk, but need not wait for it.
        wal_sync_method => case Disk of memory -> none; _ -> datasync end
    },
    {ok, _} = ra_system:start(Settings),
    case ra:restart_server(default, me()) of
        ok -> ok;
        _new -> ok = ra:start_server(default, ?NAME, me(), {module, ?MODULE, #{}}, [{?NAME, Voter} || Voter <- Voters])
    end,
    %% Nobody calls an election at the first start.
    hd(Voters) =:= node() andalso ra:trigger_election(me()),
    ok.

me() -> {?NAME, node()}.

init(_) -> #{}.
apply(_Meta, {put, Key, Value}, State) -> {State#{Key => Value}, ok}.

leader() ->
    case ra_leaderboard:lookup_leader(?NAME) of
        {?NAME, Node} -> Node;
        undefined -> nil
    end.

write(Key) ->
    case ra:process_command(me(), {put, Key, <<"sixteen letters!">>}, ?TIMEOUT) of
        {ok, ok, _Leader} -> ok;
        Error -> {error, Error}
    end.

lead(Node) ->
    case ra:transfer_leadership({?NAME, leader()}, {?NAME, Node}) of
        ok -> await_leader(Node, 1000);
        Error -> {error, Error}
    end.

%% It answers as soon as the other one was told.
await_leader(_, 0) -> {error, not_taken_over};
await_leader(Node, Tries) ->
    case leader() of
        Node -> ok;
        _ -> timer:sleep(1), await_leader(Node, Tries - 1)
    end.
