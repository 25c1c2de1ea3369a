%% The BEAM's side of the codec benchmark: makes the terms, and times its own codec on request.
-module(beam).
-export([serve/1]).

%% Writes each term to Folder/NAME.etf, says "ready", then answers lines "decode NAME COUNT" and "encode NAME COUNT"
%% with the nanoseconds that COUNT operations took.
serve([Folder]) ->
    Terms = maps:from_list(
        [{atom_to_list(Name), {Term, term_to_binary(Term, [{minor_version, 2}])}} || {Name, Term} <- terms()]
    ),
    [ok = file:write_file(filename:join(Folder, Name ++ ".etf"), Bytes)
        || {Name, {_, Bytes}} <- maps:to_list(Terms)],
    io:format("ready~n"),
    loop(Terms).

loop(Terms) ->
    case io:get_line("") of
        eof ->
            halt();
        Line ->
            [Operation, Name, Count] = string:lexemes(Line, " \n"),
            {Term, Bytes} = maps:get(Name, Terms),
            N = list_to_integer(Count),
            Work =
                case Operation of
                    "decode" -> fun() -> decode(N, Bytes, none) end;
                    "encode" -> fun() -> encode(N, Term, none) end
                end,
            io:format("~b~n", [timed(Work)]),
            loop(Terms)
    end.

%% In a process of its own, so that no measurement pays for the garbage of another.
timed(Work) ->
    Self = self(),
    spawn_link(fun() ->
        Start = erlang:monotonic_time(nanosecond),
        Work(),
        Self ! {took, erlang:monotonic_time(nanosecond) - Start}
    end),
    receive
        {took, Nanoseconds} -> Nanoseconds
    end.

decode(0, _, Last) -> Last;
decode(N, Bytes, _) -> decode(N - 1, Bytes, binary_to_term(Bytes)).

encode(0, _, Last) -> Last;
encode(N, Term, _) -> encode(N - 1, Term, term_to_binary(Term, [{minor_version, 2}])).

terms() ->
    Alias = erlang:monitor(process, whereis(init), [{alias, reply_demonitor}]),
    Atoms = list_to_tuple([list_to_atom("attribute_" ++ integer_to_list(I)) || I <- lists:seq(1, 200)]),
    [
        {gen_call, {'$gen_call', {self(), [alias | Alias]}, {get, <<"user:42">>}}},
        {ints10k, [(I * 7919) rem 1000003 || I <- lists:seq(1, 10000)]},
        {map1k, maps:from_list([{<<"key-", (integer_to_binary(I))/binary>>, I * 31} || I <- lists:seq(1, 1000)])},
        {json100k, [user(I) || I <- lists:seq(1, 100)]},
        {bin1m, binary:copy(<<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255>>, 65536)},
        {atoms10k, [element(1 + (I * 37 rem 200), Atoms) || I <- lists:seq(1, 10000)]},
        {tuples10k, [{ok, I, <<"payload">>, I * 1.5} || I <- lists:seq(1, 10000)]},
        {pids1k, [{self(), make_ref()} || _ <- lists:seq(1, 1000)]}
    ].

user(I) ->
    #{
        <<"id">> => I,
        <<"uuid">> => <<"550e8400-e29b-41d4-a716-44665544", (integer_to_binary(1000 + I))/binary>>,
        <<"active">> => I rem 2 =:= 0,
        <<"score">> => I * 1.25,
        <<"parent">> => null,
        <<"name">> => <<"Some User Name ", (integer_to_binary(I))/binary>>,
        <<"tags">> => [<<"alpha">>, <<"beta">>, <<"gamma">>, <<"delta">>],
        <<"address">> => #{
            <<"street">> => <<"123 Long Street Name Ave">>,
            <<"city">> => <<"Springfield">>,
            <<"zip">> => <<"12345-6789">>,
            <<"geo">> => [12.345678, -98.765432],
            <<"lines">> => [#{<<"n">> => J, <<"text">> => <<"line text content goes here">>} || J <- lists:seq(1, 8)]
        },
        <<"history">> => [#{<<"ts">> => 1700000000000 + J * 1000, <<"event">> => <<"login">>} || J <- lists:seq(1, 5)]
    }.
