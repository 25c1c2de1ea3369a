%% The BEAM's side of the storm: an agent that starts and inspects workers, and the workers, which do what they are told.
-module(storm).
-export([start/0, worker/2]).

start() ->
    register(agent, self()),
    net_kernel:monitor_nodes(true),
    agent(0).

agent(Downs) ->
    receive
        {start, From} ->
            spawn(?MODULE, worker, [From, spawned]),
            agent(Downs);
        {inspect, From, Ref} ->
            From ! {inspected, Ref, Downs, [describe(P) || P <- processes(), not is_resolver(P)], [inspect(P) || P <- workers()]},
            agent(Downs);
        {nodedown, _} ->
            agent(Downs + 1);
        {nodeup, _} ->
            agent(Downs)
    end.

describe(P) -> {P, process_info(P, [registered_name, initial_call, current_function])}.

%% Looks up the hosts of nodes that are dialled; started when the first one is.
is_resolver(P) ->
    case process_info(P, registered_name) of
        {registered_name, Name} -> lists:prefix("inet_gethost_native", atom_to_list(Name));
        _ -> false
    end.

workers() ->
    [P || P <- processes(), {dictionary, D} <- [process_info(P, dictionary)], lists:keymember(storm_worker, 1, D)].

inspect(P) ->
    case process_info(P, [links, monitors, monitored_by, message_queue_len]) of
        [{links, Links}, {monitors, Monitors}, {monitored_by, By}, {message_queue_len, Len}] ->
            {P, remote(Links), length([1 || {process, M} <- Monitors, is_remote(M)]), remote(By), Len};
        undefined ->
            dead
    end.

remote(Pids) -> [P || P <- Pids, is_pid(P), is_remote(P)].

is_remote({_Name, Node}) -> Node =/= node();
is_remote(Pid) -> node(Pid) =/= node().

%% Ready for everything before anybody knows it.
worker(Boss, spawned) ->
    process_flag(trap_exit, true),
    put(storm_worker, true),
    Boss ! {started, self()},
    loop(#{boss => Boss, monitors => #{}, sent => #{}, got => #{}, gone => #{}}).

loop(S) ->
    receive
        {do, Ops} -> loop(lists:foldl(fun do/2, S, Ops));
        {seq, From, N, _Bytes} -> loop(got(From, N, S));
        {'EXIT', _, poke} -> loop(S);
        {'EXIT', From, Reason} -> loop(gone(From, Reason, S));
        {'DOWN', Ref, process, Who, Reason} -> loop(down(Ref, Who, Reason, S))
    end.

do({link, P}, S) -> link(P), S;
do({unlink, P}, S) -> unlink(P), S;
do({monitor, P}, S) -> monitored(monitor(process, P), S);
do({monitor_name, Name, Node}, S) -> monitored(monitor(process, {Name, Node}), S);
do(demonitor, #{monitors := Ms} = S) ->
    case maps:keys(Ms) of
        [] -> S;
        [Ref | _] -> demonitor(Ref, [flush]), S#{monitors := maps:remove(Ref, Ms)}
    end;
do({poke, P}, S) -> exit(P, poke), S;
do({kill, P}, S) -> exit(P, kill), S;
do({send, P, Size}, #{sent := Sent} = S) ->
    N = maps:get(P, Sent, 0),
    P ! {seq, self(), N, binary:copy(<<7>>, Size)},
    S#{sent := Sent#{P => N + 1}};
do({register, Name}, S) -> catch register(Name, self()), S;
do({unregister, Name}, S) -> catch unregister(Name), S;
do({spawn, Node}, #{boss := Boss} = S) ->
    {_Pid, Ref} = spawn_opt(Node, storm, worker, [Boss, spawned], [link, monitor]),
    monitored(Ref, S);
do(stop, _) -> exit(done).

monitored(Ref, #{monitors := Ms} = S) -> S#{monitors := Ms#{Ref => true}}.

%% In order, and none left out but by the loss of a connection.
got(From, N, #{got := Got, gone := Gone} = S) ->
    case maps:get(From, Got, 0) of
        N -> ok;
        Next when N > Next -> violation(S, {lost, From, Next, N});
        Next -> violation(S, {disorder, From, Next, N})
    end,
    maps:is_key(From, Gone) andalso violation(S, {message_after_death, From}),
    S#{got := Got#{From => N + 1}}.

gone(From, Reason, #{gone := Gone} = S) when Reason =:= done; Reason =:= killed -> S#{gone := Gone#{From => true}};
gone(_, noproc, S) -> S;
gone(_, noconnection, S) -> violation(S, noconnection), S;
gone(From, Reason, S) -> violation(S, {exit, From, Reason}), S.

down(Ref, Who, Reason, #{monitors := Ms} = S) ->
    maps:is_key(Ref, Ms) orelse violation(S, {down_twice, Who, Reason}),
    Left = S#{monitors := maps:remove(Ref, Ms)},
    case Who of
        Pid when is_pid(Pid) -> gone(Pid, Reason, Left);
        _ when Reason =:= noconnection -> violation(S, noconnection), Left;
        _ -> Left
    end.

violation(#{boss := Boss}, What) -> Boss ! {violation, self(), What}.
