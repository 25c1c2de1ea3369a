%% What the nodes do; the harness calls it over their standard input, so that it is no part of their cluster.
-module(work).
-export([spawn_processes/1, in/2, register_all/5, wait_for/3, start_waiting/3, waited/0, lookups/5, memory/1]).
-export([latencies/3, poll/4, polled/0, stall_start/1, stall_stop/0, watch_down/3, down/0, halt_soon/0]).

name(Prefix, I) -> <<(atom_to_binary(Prefix))/binary, $-, (integer_to_binary(I))/binary>>.

now_us() -> os:system_time(microsecond).

%% The processes that get names. They live as long as the node.
spawn_processes(Count) ->
    Pids = list_to_tuple([spawn(fun hold/0) || _ <- lists:seq(1, Count)]),
    persistent_term:put({work, pids}, Pids).

hold() ->
    receive
        {do, From, Reference, Work} -> From ! {Reference, Work()}, hold();
        stop -> ok
    end.

%% In one of them, for registries that register only who asks.
in(Pid, Work) ->
    Reference = monitor(process, Pid),
    Pid ! {do, self(), Reference, Work},
    receive
        {Reference, Result} -> demonitor(Reference, [flush]), Result;
        {'DOWN', Reference, _, _, Reason} -> exit(Reason)
    end.

pid(I) ->
    Pids = persistent_term:get({work, pids}),
    element((I - 1) rem tuple_size(Pids) + 1, Pids).

%% Registers From..To, by so many callers at once: when it began and how long it took.
register_all(Adapter, Prefix, From, To, Callers) ->
    Share = (To - From + Callers) div Callers,
    Workers = [
        spawn_monitor(fun() ->
            receive go -> ok end,
            [ok = Adapter:register(name(Prefix, I), pid(I)) || I <- lists:seq(First, min(First + Share - 1, To))]
        end)
     || First <- lists:seq(From, To, Share)
    ],
    Began = now_us(),
    [Pid ! go || {Pid, _} <- Workers],
    [receive {'DOWN', Monitor, _, _, normal} -> ok; {'DOWN', Monitor, _, _, Why} -> exit(Why) end || {_, Monitor} <- Workers],
    {Began, now_us() - Began}.

%% When this node sees so many names.
wait_for(Adapter, Count, Milliseconds) -> wait_until(Adapter, Count, now_us() + Milliseconds * 1000).

wait_until(Adapter, Count, Deadline) ->
    case Adapter:count() of
        Count -> now_us();
        Seen ->
            now_us() < Deadline orelse exit({sees, Seen, of_, Count}),
            timer:sleep(1),
            wait_until(Adapter, Count, Deadline)
    end.

start_waiting(Adapter, Count, Milliseconds) ->
    persistent_term:put({work, waited}, none),
    spawn(fun() -> persistent_term:put({work, waited}, {at, wait_for(Adapter, Count, Milliseconds)}) end),
    ok.

waited() -> persistent_term:get({work, waited}).

%% Nanoseconds per look-up of one process, the least of some rounds.
lookups(Adapter, Function, Prefix, Count, Rounds) ->
    Names = list_to_tuple([name(Prefix, I * 7919 rem Count + 1) || I <- lists:seq(1, 1000)]),
    lists:min([time(Adapter, Function, Names, 20000) || _ <- lists:seq(1, Rounds)]).

time(Adapter, Function, Names, Count) ->
    Began = erlang:monotonic_time(nanosecond),
    look(Adapter, Function, Names, Count),
    (erlang:monotonic_time(nanosecond) - Began) / Count.

look(_, _, _, 0) -> ok;
look(Adapter, Function, Names, Left) ->
    Adapter:Function(element(Left rem 1000 + 1, Names)),
    look(Adapter, Function, Names, Left - 1).

%% Of the whole program: the tables may be outside the VM's own heaps.
memory(_) ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kilobytes]} = re:run(Status, "VmRSS:\\s*(\\d+)", [{capture, all_but_first, list}]),
    list_to_integer(Kilobytes) * 1024.

%% Registers one name after the other, each when all of Others have seen the last one; `{began, answered}` of each.
latencies(Adapter, Count, Others) ->
    Me = self(),
    spawn(fun() ->
        register(work_latencies, self()),
        [{work_poller, Node} ! {begin_, Node} || Node <- Others],
        Me ! {latencies, [latency(Adapter, I, Others) || I <- lists:seq(1, Count)]}
    end),
    receive {latencies, Times} -> Times after 300000 -> exit(timeout) end.

latency(Adapter, I, Others) ->
    timer:sleep(1),
    Began = now_us(),
    ok = Adapter:register(name(latency, I), pid(I)),
    Answered = now_us(),
    [receive {seen, Node, I} -> ok after 30000 -> exit(not_seen) end || Node <- Others],
    {Began, Answered}.

%% Looks for those names without a pause, and notes when each was there.
poll(Adapter, Count, Node, _) ->
    Me = self(),
    persistent_term:put({work, polled}, none),
    spawn(fun() ->
        register(work_poller, self()),
        Me ! polling,
        persistent_term:put({work, polled}, [poll_one(Adapter, I, Node) || I <- lists:seq(1, Count)])
    end),
    receive polling -> polling end.

poll_one(Adapter, I, Node) ->
    Seen = spin(Adapter, name(latency, I)),
    {work_latencies, Node} ! {seen, node(), I},
    Seen.

spin(Adapter, Name) ->
    case Adapter:whereis(Name) of
        undefined -> spin(Adapter, Name);
        _ -> now_us()
    end.

polled() -> persistent_term:get({work, polled}).

%% Registers and unregisters all the time, until it is stopped: the longest registration, in microseconds.
stall_start(Adapter) ->
    spawn(fun() -> register(work_stall, self()), stall(Adapter, 1, 0) end),
    ok.

stall(Adapter, I, Longest) ->
    receive
        {stop, From} -> From ! {stall, Longest}
    after 0 ->
        Name = name(stall, I),
        Began = now_us(),
        ok = Adapter:register(Name, pid(I)),
        Took = now_us() - Began,
        ok = Adapter:unregister(Name, pid(I)),
        timer:sleep(1),
        stall(Adapter, I + 1, max(Longest, Took))
    end.

stall_stop() ->
    work_stall ! {stop, self()},
    receive {stall, Longest} -> Longest after 60000 -> exit(timeout) end.

%% When a node is known to be gone, and when its names are.
watch_down(Adapter, Node, Left) ->
    persistent_term:put({work, down}, none),
    spawn(fun() ->
        ok = Adapter:await_down(Node),
        Known = now_us(),
        persistent_term:put({work, down}, {down, Known, wait_for(Adapter, Left, 120000)})
    end),
    ok.

down() -> persistent_term:get({work, down}).

halt_soon() -> spawn(fun() -> timer:sleep(20), erlang:halt(0, [{flush, false}]) end), ok.
