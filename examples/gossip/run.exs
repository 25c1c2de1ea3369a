# Finds the Rust node of main.rs, of which it knows neither name nor address.

gossip = {Tiebeam.Discovery.Gossip, secret: "secret", multicast_if: {127, 0, 0, 1}}
{:ok, _} = Tiebeam.start_link(name: Found, discovery: [gossip])
:ok = Tiebeam.subscribe(Found)

# It may be here already.
await = fn await ->
  case for(%{kind: :rust, status: :alive} = member <- Tiebeam.members(Found), do: member) do
    [member] -> member
    [] -> receive do: ({:tiebeam, Found, _event} -> await.(await))
  end
end

IO.puts("found: #{await.(await).node}")
IO.puts("nodes: #{inspect(Node.list())}")
