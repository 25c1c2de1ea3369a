%% Runs the same work on several registries, in interleaved rounds on fresh nodes, and prints medians and ratios.
%%
%% The nodes are steered over their standard input (OTP's peer): this VM is no part of their clusters.
-module(harness).
-export([main/0]).

-define(CALLERS, 16).
-define(GLOBAL_NAMES, 1000).

main() ->
    Rounds = integer("ROUNDS", 3),
    Others = [{bench_syn, "SYN"}, {bench_group, "GROUP"}, {bench_horde, "HORDE"}],
    Adapters = [bench_tiebeam | [Adapter || {Adapter, Variable} <- Others, os:getenv(Variable) =/= false]] ++
        [bench_pg, bench_global],
    [{module, _} = code:ensure_loaded(Adapter) || Adapter <- Adapters],
    Sizes = [list_to_integer(Size) || Size <- string:lexemes(os:getenv("SIZES", "10000,100000"), ",")],
    Parts = string:lexemes(os:getenv("PARTS", "names,latency,down,join"), ","),
    [io:format("Without ~s: ~s names no ebin directory of it.~n", [atom_to_list(Adapter) -- "bench_", Variable])
     || {Adapter, Variable} <- Others, os:getenv(Variable) =:= false],
    lists:member("names", Parts) andalso [names(Adapters, Size, Rounds) || Size <- Sizes],
    lists:member("latency", Parts) andalso latency(Adapters, Rounds),
    lists:member("down", Parts) andalso down(Adapters -- [bench_global], 10000, Rounds),
    lists:member("join", Parts) andalso join(Adapters -- [bench_global], lists:max(Sizes), Rounds),
    halt(0).

integer(Name, Default) ->
    list_to_integer(os:getenv(Name, integer_to_list(Default))).

%% One node registers, three see it.
names(Adapters, Names, Rounds) ->
    Runs = rounds(Adapters, Rounds, fun(Adapter) ->
        %% A name takes global a millisecond and more.
        Size = case Adapter of bench_global -> min(Names, ?GLOBAL_NAMES); _ -> Names end,
        [A, B, C] = Nodes = cluster(3, Adapter),
        Before = call(B, work, memory, [rss]),
        call(A, work, spawn_processes, [Size]),
        [ok = call(Node, work, start_waiting, [Adapter, Size, 300000]) || Node <- Nodes],
        Busy = processor_time(Nodes),
        {Began, Took} = call(A, work, register_all, [Adapter, bulk, 1, Size, ?CALLERS]),
        Seen = lists:max([wait(Node, waited, at) || Node <- Nodes]) - Began,
        Processor = (processor_time(Nodes) - Busy) / Size,
        Memory = (call(B, work, memory, [rss]) - Before) / Size,
        Look = call(B, work, lookups, [Adapter, whereis, bulk, Size, 20]),
        Bare = case erlang:function_exported(Adapter, bare, 1) of
            true -> [{bare, call(B, work, lookups, [Adapter, bare, bulk, Size, 20])}];
            false -> []
        end,
        Again = [{bare_ratio, Look / Nanoseconds} || {bare, Nanoseconds} <- Bare],
        stop(Nodes), _ = C,
        [{registrations, Size * 1000000 / Took}, {visible, Seen / 1000}, {lookup, Look}, {processor, Processor}, {memory, Memory}] ++ Bare ++ Again
    end),
    io:format("~n== ~b names (~b of global's), 3 nodes, ~b callers on one~n", [Names, min(Names, ?GLOBAL_NAMES), ?CALLERS]),
    table(Adapters, Runs, [{registrations, "registrations/s"}, {visible, "visible on all, ms"}, {lookup, "look-up elsewhere, ns"},
        {bare, "bare ets:lookup, ns"}, {bare_ratio, "look-up / bare"}, {processor, "processor time on all, us each"},
        {memory, "bytes per name elsewhere"}]),
    target(Runs, registrations, bench_syn, at_least, 3.0),
    target(Runs, registrations, bench_global, at_least, 20.0),
    target(Runs, visible, bench_syn, at_most, 0.5),
    ratio(Runs, processor, bench_syn),
    ratio(Runs, memory, bench_syn),
    verdict("look-up of a bare ets:lookup", median(Runs, bench_tiebeam, bare_ratio), at_most, 1.2).

%% Of all threads of the nodes, in microseconds: the one figure that other programs on the machine do not change much.
processor_time(Nodes) ->
    lists:sum([element(1, call(Node, erlang, statistics, [runtime])) * 1000 || Node <- Nodes]).

%% From the call to when both others see the name.
latency(Adapters, Rounds) ->
    Count = 200,
    Runs = rounds(Adapters, Rounds, fun(Adapter) ->
        [{_, NodeA} = A, {_, NodeB} = B, {_, NodeC} = C] = Nodes = cluster(3, Adapter),
        call(A, work, spawn_processes, [Count]),
        [polling = call(Node, work, poll, [Adapter, Count, NodeA, []]) || Node <- [B, C]],
        Times = call(A, work, latencies, [Adapter, Count, [NodeB, NodeC]]),
        [SeenB, SeenC] = [poll(fun() -> call(Node, work, polled, []) end) || Node <- [B, C]],
        stop(Nodes),
        Calls = [Answered - Began || {Began, Answered} <- Times],
        Visible = [max(X, Y) - Began || {{Began, _}, X, Y} <- lists:zip3(Times, SeenB, SeenC)],
        [{call, at(Calls, 50) / 1000}, {call99, at(Calls, 99) / 1000},
         {seen, at(Visible, 50) / 1000}, {seen99, at(Visible, 99) / 1000}]
    end),
    io:format("~n== one name at a time, ~b of them~n", [Count]),
    table(Adapters, Runs, [{call, "answered, median ms"}, {call99, "answered, 99 %, ms"},
        {seen, "visible elsewhere, median ms"}, {seen99, "visible elsewhere, 99 %, ms"}]),
    verdict("visible elsewhere, 99 %, ms", median(Runs, bench_tiebeam, seen99), at_most, 5.0).

%% A node with names ends. Where its names go in the turn of the verdict, no time is left between the two.
down(Adapters, Size, Rounds) ->
    Runs = rounds(Adapters, Rounds, fun(Adapter) ->
        [A, B, {PeerC, NodeC} = C] = cluster(3, Adapter),
        call(C, work, spawn_processes, [Size]),
        call(C, work, register_all, [Adapter, gone, 1, Size, ?CALLERS]),
        [call(Node, work, wait_for, [Adapter, Size, 180000]) || Node <- [A, B]],
        [ok = call(Node, work, watch_down, [Adapter, NodeC, 0]) || Node <- [A, B]],
        unlink(PeerC),
        Began = os:system_time(microsecond),
        catch call(C, work, halt_soon, []),
        Times = [poll(fun() -> call(Node, work, down, []) end) || Node <- [A, B]],
        stop([A, B]),
        [{known, lists:max([Known - Began || {down, Known, _} <- Times]) / 1000},
         {clean, lists:max([Clean - Known || {down, Known, Clean} <- Times]) / 1000}]
    end),
    io:format("~n== a node with ~b names ends~n", [Size]),
    table(Adapters, Runs, [{known, "known to be gone, ms"}, {clean, "its names gone after that, ms"}]),
    verdict("names gone after the verdict, ms", median(Runs, bench_tiebeam, clean), at_most, 100.0).

%% A fourth node joins three that have names, while one of them registers.
join(Adapters, Size, Rounds) ->
    Share = Size div 3,
    Runs = rounds(Adapters, Rounds, fun(Adapter) ->
        [{_, NodeA} = A | _] = Nodes = cluster(3, Adapter),
        [call(Node, work, spawn_processes, [Share]) || Node <- Nodes],
        [call(Node, work, register_all, [Adapter, list_to_atom("s" ++ integer_to_list(I)), 1, Share, ?CALLERS])
         || {I, Node} <- lists:zip([1, 2, 3], Nodes)],
        [call(Node, work, wait_for, [Adapter, 3 * Share, 300000]) || Node <- Nodes],
        D = start_node(4, Adapter),
        ok = call(D, Adapter, start, []),
        ok = call(A, work, stall_start, [Adapter]),
        timer:sleep(300),
        Began = os:system_time(microsecond),
        true = call(D, net_kernel, connect_node, [NodeA]),
        Took = poll_count(D, Adapter, 3 * Share) - Began,
        Stall = call(A, work, stall_stop, []),
        stop([D | Nodes]),
        [{join, Took / 1000}, {stall, Stall / 1000}]
    end),
    io:format("~n== a fourth node joins ~b names~n", [3 * Share]),
    table(Adapters, Runs, [{join, "all names visible on it, ms"}, {stall, "longest registration meanwhile, ms"}]),
    target(Runs, join, bench_syn, at_most, 0.5),
    verdict("longest registration while a node joins, ms", median(Runs, bench_tiebeam, stall), at_most, 50.0).

%% Some names more may be there for a moment: another process registers all the time.
poll_count(Node, Adapter, Count) ->
    case call(Node, Adapter, count, []) >= Count of
        true -> os:system_time(microsecond);
        false -> timer:sleep(1), poll_count(Node, Adapter, Count)
    end.

%% Nodes.

cluster(Count, Adapter) ->
    Nodes = [{_, First} | Others] = [start_node(I, Adapter) || I <- lists:seq(1, Count)],
    [ok = call(Node, Adapter, start, []) || Node <- Nodes],
    [true = call(Node, net_kernel, connect_node, [First]) || Node <- Others],
    Names = [Name || {_, Name} <- Nodes],
    poll(fun() -> lists:all(fun({_, Name} = Node) -> Names -- [Name | call(Node, erlang, nodes, [])] =:= [] end, Nodes) orelse none end),
    poll(fun() -> lists:all(fun({_, Name} = Node) -> call(Node, Adapter, ready, [Names -- [Name]]) end, Nodes) orelse none end),
    Nodes.

start_node(I, Adapter) ->
    Paths = [filename:dirname(code:which(?MODULE)) | Adapter:paths()],
    Arguments = lists:append([["-pa", Path] || Path <- Paths]) ++
        ["-setcookie", "bench", "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-kernel", "logger_level", "emergency",
         "+P", "2000000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"],
    Name = "bench" ++ integer_to_list(I) ++ "_" ++ os:getpid(),
    {ok, Peer, Node} = peer:start_link(#{name => Name, host => "127.0.0.1", longnames => true,
        connection => standard_io, args => Arguments, wait_boot => 60000}),
    {Peer, Node}.

call({Peer, _}, Module, Function, Arguments) -> peer:call(Peer, Module, Function, Arguments, 600000).

stop(Nodes) -> [catch peer:stop(Peer) || {Peer, _} <- Nodes].

wait(Node, Function, Tag) -> {Tag, Value} = poll(fun() -> call(Node, work, Function, []) end), Value.

poll(Read) ->
    case Read() of
        none -> timer:sleep(5), poll(Read);
        Value -> Value
    end.

%% Figures.

rounds(Adapters, Rounds, Run) ->
    [{Adapter, Run(Adapter)} || _ <- lists:seq(1, Rounds), Adapter <- Adapters].

median(Runs, Adapter, Figure) ->
    case lists:sort([Value || {A, Figures} <- Runs, A =:= Adapter, {F, Value} <- Figures, F =:= Figure]) of
        [] -> none;
        Sorted -> lists:nth((length(Sorted) + 1) div 2, Sorted)
    end.

at(Values, Percent) ->
    Sorted = lists:sort(Values),
    lists:nth(max(1, ceil(length(Sorted) * Percent / 100)), Sorted).

table(Adapters, Runs, Figures) ->
    io:format("~-38s~s~n", ["", [io_lib:format("~12s", [atom_to_list(A) -- "bench_"]) || A <- Adapters]]),
    [io:format("~-38s~s~n", [Text, [cell(median(Runs, A, Figure)) || A <- Adapters]]) || {Figure, Text} <- Figures],
    ok.

cell(none) -> io_lib:format("~12s", ["-"]);
cell(Value) when Value >= 100 -> io_lib:format("~12b", [round(Value)]);
cell(Value) -> io_lib:format("~12.2f", [float(Value)]).

target(Runs, Figure, Other, Relation, Target) ->
    case {median(Runs, bench_tiebeam, Figure), median(Runs, Other, Figure)} of
        {_, none} -> ok;
        {Ours, Theirs} ->
            Text = io_lib:format("~s / ~s's", [Figure, atom_to_list(Other) -- "bench_"]),
            verdict(Text, Ours / Theirs, Relation, Target)
    end.

%% A figure without a goal.
ratio(Runs, Figure, Other) ->
    case {median(Runs, bench_tiebeam, Figure), median(Runs, Other, Figure)} of
        {Ours, Theirs} when is_number(Theirs), Theirs > 0 ->
            io:format("~s / ~s's: ~.2f~n", [Figure, atom_to_list(Other) -- "bench_", Ours / Theirs]);
        _ -> ok
    end.

verdict(_, none, _, _) -> ok;
verdict(Text, Value, Relation, Target) ->
    Met = case Relation of
        at_least -> Value >= Target;
        at_most -> Value =< Target
    end,
    io:format("~s: ~.2f (~s ~.2f: ~s)~n", [Text, float(Value), string:replace(atom_to_list(Relation), "_", " "), Target,
        case Met of true -> "met"; false -> "missed" end]).
