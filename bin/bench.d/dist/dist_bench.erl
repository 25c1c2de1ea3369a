%% The BEAM's half: a server with a sink, an echo and a blaster, and the client that sets the mark.
%% src/server.rs and src/client.rs do the same in Rust, in the same words.
-module(dist_bench).
-export([server/0, client/3]).

%% Runs until standard input ends.
server() ->
    register(sink, spawn(fun sink/0)),
    register(echo, spawn(fun echo/0)),
    register(blaster, spawn(fun blaster/0)),
    io:format("ready~n"),
    eof = io:get_line(""),
    halt().

sink() ->
    receive {count, From, N} -> count(N), From ! counted end,
    sink().

count(0) -> ok;
count(N) -> receive {msg, _, _} -> count(N - 1) end.

echo() ->
    receive {ping, From, I} -> From ! {pong, I} end,
    echo().

blaster() ->
    receive {blast, To, N} -> spawn(fun() -> blast(To, N) end) end,
    blaster().

blast(_, 0) -> ok;
blast(To, N) -> To ! {msg, N, <<"hello world">>}, blast(To, N - 1).

%% Measures against a server and prints what came out.
client(Server, Messages, Pings) ->
    [Sink, Echo, Blaster] = [erpc:call(Server, erlang, whereis, [Name]) || Name <- [sink, echo, blaster]],
    send(Sink, Messages div 20),
    io:format("send ~.1f~n", [rate(Messages, send(Sink, Messages))]),
    received(Blaster, Messages div 20),
    io:format("receive ~.1f~n", [rate(Messages, received(Blaster, Messages))]),
    pings(Echo, Pings div 20),
    io:format("ping ~.3f~n", [lists:nth((Pings + 1) div 2, lists:sort(pings(Echo, Pings))) / 1000]),
    halt().

rate(Messages, Nanoseconds) -> Messages * 1.0e9 / Nanoseconds.

now_ns() -> erlang:monotonic_time(nanosecond).

send(Sink, N) ->
    Start = now_ns(),
    Sink ! {count, self(), N},
    blast(Sink, N),
    receive counted -> ok end,
    now_ns() - Start.

%% In a process of its own: nothing but the messages is in its mailbox.
received(Blaster, N) ->
    Self = self(),
    spawn_link(fun() ->
        Start = now_ns(),
        Blaster ! {blast, self(), N},
        count(N),
        Self ! {received, now_ns() - Start}
    end),
    receive {received, Time} -> Time end.

pings(Echo, N) -> [ping(Echo, I) || I <- lists:seq(1, N)].

ping(Echo, I) ->
    Start = now_ns(),
    Echo ! {ping, self(), I},
    receive {pong, I} -> ok end,
    now_ns() - Start.
